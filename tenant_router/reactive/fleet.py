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
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from tenant_router.config_store.base import ConfigStore, Head, Lease
from tenant_router.exceptions import Denied

logger = logging.getLogger(__name__)

NEWS_GAP = 1.0  # seconds between two reports, however much happens
REFUSALS_TOLD = 20  # of each process, the latest
SILENT = "SILENT"


class Member(NamedTuple):
    """One process. ``refusals``: tenant -> the revision that it refused; ``refused`` counts all of them."""

    host: str
    pid: int
    role: str
    version: str
    epoch: str
    revision: int
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
    except (ValueError, KeyError, TypeError):
        return None
    if any(type(value) is not _TYPES.get(name, str) for name, value in known.items()):
        return None
    if lease.age > silent_after:
        known["state"] = SILENT
    return Member(**known, uid=uid, age=lease.age)


class Reporter:
    """Keeps this process's lease. Used by the thread that follows the store; only ``leave`` by any other."""

    def __init__(self, store: ConfigStore, describe: Callable[[], Member], lasts: float) -> None:
        self._store, self._describe, self.lasts = store, describe, lasts
        self._silenced = not store.keeps_leases
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
        """Say what this process is like, if it is time to. Raises ``StoreUnavailable``."""
        with self._lock:
            if self.due_in > 0:
                return
            try:
                self._store.lease(self._uid, self._describe().encoded(), self.lasts)
            except Denied as error:
                self._silenced = True
                logger.warning("this process is left out of the fleet's status: %s", error)
            self._told = time.monotonic()
            self._due = self._told + self.lasts * random.uniform(0.22, 0.33)

    def leave(self) -> None:
        """End the lease: nobody needs to wait for a process that ends. Raises ``StoreError``."""
        with self._lock:  # a report that is under way would take the lease again
            silenced, self._silenced = self._silenced, True
            if not silenced and self._told > 0:
                self._store.lease(self._uid, "", 0)


class Standing(NamedTuple):
    """Where the fleet stands with respect to a revision. A process that refuses does not lag."""

    members: tuple[Member, ...]
    lagging: tuple[Member, ...]
    refusing: tuple[Member, ...]

    @property
    def converged(self) -> bool:
        """Whether every living process has taken it over."""
        return not self.lagging and not self.refusing


def standing(store: ConfigStore, target: Head, tenant_ids: Iterable[str] = (), silent_after: float = 20.0) -> Standing:
    """Compare the fleet with ``target``; with ``tenant_ids`` only refusals of their records count.

    ``silent_after``: seconds after which a process that says nothing is shown as silent. Raises ``StoreError``.
    """
    found = (member(uid, lease, silent_after) for uid, lease in store.leases().items())
    members = tuple(sorted((one for one in found if one), key=lambda one: (one.host, one.pid, one.uid)))
    lagging = tuple(one for one in members if one.epoch != target.epoch or one.revision < target.rev)
    asked = set(tenant_ids)
    refusing = tuple(
        one
        for one in members
        if one not in lagging and one.refused and (not asked or not asked.isdisjoint(one.refusals))
    )
    return Standing(members, lagging, refusing)
