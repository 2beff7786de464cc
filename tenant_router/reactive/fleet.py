"""The processes of a service: what each says of itself in the store, and what follows from all of it.

A process says it under a lease, from the thread that follows the store. So one that is stopped,
hangs or is cut off falls silent, and its lease ends by the store's own clock.
"""

from __future__ import annotations

import json
import logging
import random
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cache
from typing import NamedTuple

from tenant_router.config_store.base import ConfigStore, Head, Lease
from tenant_router.exceptions import Denied, StoreError

logger = logging.getLogger(__name__)

NEWS_GAP = 1.0  # seconds between two reports, however much happens
REFUSALS_TOLD = 20  # of each process, the latest
SILENT = "SILENT"
_PROBE = "probe-"  # how the name of a lease begins that is no process's


class Member(NamedTuple):
    """One process, and where in which history it stands (``epoch``, ``revision``, ``chain``).

    ``refusals``: tenant -> the revision that it refused; ``refused`` counts all of them.
    """

    host: str
    pid: int
    role: str
    version: str
    epoch: str
    revision: int
    chain: str
    state: str
    tenants: int
    loaded: int
    refused: int
    refusals: Mapping[str, int]
    uid: str = ""
    age: float = 0.0  # seconds since it said so

    def encoded(self) -> str:
        """What :func:`member` reads."""
        said = self._asdict()
        del said["uid"], said["age"]
        return json.dumps(said)


_TYPES = {"pid": int, "revision": int, "tenants": int, "loaded": int, "refused": int, "refusals": dict}


def member(uid: str, lease: Lease, silent_after: float) -> Member | None:
    """The process that a lease speaks of; ``None`` for one of another version that says something else."""
    try:
        said = json.loads(lease.value)
        known = {name: said[name] for name in Member._fields if name not in ("uid", "age")}
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    if any(type(value) is not _TYPES.get(name, str) for name, value in known.items()):
        return None
    if any(type(revision) is not int for revision in known["refusals"].values()):
        return None
    if lease.age > silent_after:
        known["state"] = SILENT
    return Member(**known, uid=uid, age=lease.age)


class Reporter:
    """Keeps this process's lease. Used by the thread that follows the store; only ``leave`` by any other."""

    def __init__(self, store: ConfigStore, describe: Callable[[], Member], lasts: float) -> None:
        self._store, self._describe, self.lasts = store, describe, lasts
        self._silenced = not store.keeps_leases
        self.fleet = 1  # processes, as far as this one knows
        self._complaint = ""
        self.reset_after_fork()

    def reset_after_fork(self) -> None:
        """A child is another process."""
        self._uid, self._told, self._due = uuid.uuid4().hex, float("-inf"), 0.0
        self._lock = threading.Lock()

    def news(self) -> None:
        """There is something to tell: it goes out as soon as :data:`NEWS_GAP` allows."""
        self._due = min(self._due, self._told + NEWS_GAP)

    @property
    def due_in(self) -> float:
        """Seconds until the next report; infinite for a store that takes none."""
        return float("inf") if self._silenced else max(0.0, self._due - time.monotonic())

    def tell(self) -> None:
        """Say what this process is like, if it is time to.

        A store that takes no report is told again when the next one is due: it may still be read.
        """
        with self._lock:
            if self.due_in > 0:
                return
            try:
                count = self._store.lease(self._uid, self._describe().encoded(), self.lasts)
            except StoreError as error:
                self._silenced = isinstance(error, Denied)
                self._complain(f"this process is left out of the fleet's status: {error}")
            else:
                self._complaint = ""
                self.fleet = max(1, count, self.fleet * 3 // 4)  # an emptied store has forgotten them, for a while
            self._told = time.monotonic()
            self._due = self._told + self.lasts * random.uniform(0.22, 0.33)

    def _complain(self, what: str) -> None:
        """Warn once of each trouble."""
        logger.log(logging.DEBUG if what == self._complaint else logging.WARNING, "%s", what)
        self._complaint = what

    def leave(self) -> None:
        """End the lease: nobody needs to wait for a process that ends. Raises ``StoreError``."""
        with self._lock:  # a report that is under way would take the lease again
            silenced, self._silenced = self._silenced, True
            if not silenced and self._told > 0:
                self._store.lease(self._uid, "", 0)


class Standing(NamedTuple):
    """Where the fleet stands with respect to a revision. A process that refuses does not lag.

    ``unreadable``: the names of leases that say nothing that is understood here: nobody knows what those have.
    """

    members: tuple[Member, ...]
    lagging: tuple[Member, ...]
    refusing: tuple[Member, ...]
    unreadable: tuple[str, ...] = ()

    @property
    def settled(self) -> bool:
        """Whether waiting for it changes nothing: nobody lags, as far as anybody knows."""
        return not self.lagging and not self.unreadable

    @property
    def converged(self) -> bool:
        """Whether every living process has taken it over."""
        return self.settled and not self.refusing


def standing(store: ConfigStore, target: Head, tenant_ids: Iterable[str] = (), silent_after: float = 20.0) -> Standing:
    """Compare the fleet with ``target``; with ``tenant_ids`` only refusals of their records count.

    ``silent_after``: seconds after which a process that says nothing is shown as silent. Raises ``StoreError``.
    """
    leases = {uid: lease for uid, lease in store.leases().items() if not uid.startswith(_PROBE)}
    found = {uid: member(uid, lease, silent_after) for uid, lease in leases.items()}
    members = tuple(sorted((one for one in found.values() if one), key=lambda one: (one.host, one.pid, one.uid)))
    unreadable = tuple(sorted(uid for uid, one in found.items() if one is None))
    chain_at = cache(store.chain_at)
    lagging = tuple(one for one in members if not _has(one, target, chain_at))
    asked = set(tenant_ids)
    refusing = tuple(one for one in members if one not in lagging and _refuses(one, asked, target.rev))
    return Standing(members, lagging, refusing, unreadable)


def _refuses(one: Member, asked: Collection[str], rev: int) -> bool:
    """Whether a process refuses a record of ``asked``, which came to be at ``rev`` or just before; or may do so."""
    if not asked:
        return one.refused > 0
    # it tells of its latest refusals: an older one is known of nobody. A commit writes little besides these records.
    untold = one.refused > len(one.refusals) and min(one.refusals.values(), default=rev) > rev - 2 * len(asked)
    return untold or any(tenant_id in one.refusals for tenant_id in asked)


def _has(one: Member, target: Head, chain_at: Callable[[int], str | None]) -> bool:
    """Whether a process has ``target``: a restored store may use the numbers of its revisions again."""
    if one.epoch != target.epoch or one.revision < target.rev:
        return False
    return one.chain == (target.chain if one.revision == target.rev and target.chain else chain_at(one.revision))


def refusal_to_write(store: ConfigStore) -> StoreError | None:
    """Why the store takes no reports at present, as one that is full or a replica; ``None`` if it takes them."""
    probe = f"{_PROBE}{uuid.uuid4().hex}"
    try:
        for _ in range(3):  # a full Redis takes one more lease in the script that has removed another
            store.lease(probe, "", 1.0)
        store.lease(probe, "", 0)
    except StoreError as error:
        return error
    return None
