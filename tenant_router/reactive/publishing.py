"""The one place that changes what this process serves, under one lock.

The invariant: what is prepared or held of a tenant is of the revision that the index has here, or
a refusal of that revision says why not. Who read the store says what the index said before the
reading; if it says something else by now, nothing is published, and the reader reads again. So no
order of first use, change, look-up and resync leaves an older record behind.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable
from typing import NamedTuple

from tenant_router.config_store.base import DELETED, STATE_NAMES, StoredRecord, packed_state, unpack
from tenant_router.managers.registry import Refusal, TenantContextManager
from tenant_router.reactive.claims import Claims
from tenant_router.tenant_context import TenantContext

logger = logging.getLogger(__name__)

Retire = Callable[[TenantContext, "TenantContext | None"], None]


class Change(NamedTuple):
    """What a tenant comes to: its entry in the index (``None`` where it has none any more), and what is known of it.

    A ``refusal`` leaves the last good context serving, or ``context``; not where nothing may serve (``bars``).
    """

    entry: str | None
    context: TenantContext | None = None
    record: StoredRecord | None = None  # which is prepared at its first use
    refusal: Refusal | None = None
    bars: bool = False


class Publisher:
    """Publishes changes of single tenants. The lock is never held during I/O."""

    def __init__(self, registry: TenantContextManager, retire: Retire, claims: Claims) -> None:
        self.registry, self._retire, self._claims = registry, retire, claims
        # Records that were read and not looked at yet: they are prepared when first used.
        self._held: dict[str, StoredRecord] = {}
        self.live = 0  # entries of the index that are no tombstones
        self._lock = threading.RLock()
        self._still_by = 0  # the thread that holds it because it is about to fork

    def publish(self, tenant_id: str, before: str | None, change: Change) -> bool:
        """Make it what everybody sees.

        ``False``, and nothing happens, if the index does not say ``before`` any more, or if a record is needed.
        """
        with self._lock:
            if not self._says(tenant_id, before):
                return False
            change = _judged(change)
            if self.holds(tenant_id) and _tells_nothing(change):
                return False
            self.live += _lives(change.entry) - _lives(before)
            self._set(tenant_id, change)
        return True

    def holds(self, tenant_id: str) -> bool:
        """Whether a record of the tenant is in use here, or will be at its first use."""
        return tenant_id in self.registry.prepared or tenant_id in self._held

    def inconsistent(self) -> list[str]:
        """The tenants of which something is held that is not of the revision that the index has: there are none."""
        with self._lock:
            held = {tenant_id: record.rev for tenant_id, record in self._held.items()}
            held |= {tenant_id: context.revision for tenant_id, context in self.registry.prepared.items()}
            return [tenant_id for tenant_id, rev in held.items() if not self._is_of(tenant_id, rev)]

    def serve(self) -> None:
        """Serve what is prepared, from now on; see ``TenantContextManager.withhold``."""
        with self._lock:
            self.registry.serve()

    def hold_still(self, seconds: float) -> None:
        """Before a fork: keep others from publishing, if that can be had within so many seconds."""
        if self._lock.acquire(timeout=seconds):
            self._still_by = threading.get_ident()

    def go_on(self) -> None:
        """In the parent, after a fork."""
        if self._still_by == threading.get_ident():
            self._still_by = 0
            self._lock.release()

    def reset_after_fork(self) -> None:
        """In a child: the parent's threads do not exist here, and one of them may have been publishing."""
        whole = self._still_by == threading.get_ident()
        self._lock, self._still_by = threading.RLock(), 0
        if not whole:
            for tenant_id in self.inconsistent():
                self._held.pop(tenant_id, None)
                self.registry.prepared.pop(tenant_id, None)
                self._claims.release(tenant_id)
            self._count()

    # --- inside ---

    def _says(self, tenant_id: str, entry: str | None) -> bool:
        return self.registry.index.get(tenant_id) == entry

    def _is_of(self, tenant_id: str, rev: int) -> bool:
        entry, refusal = self.registry.index.get(tenant_id), self.registry.refusals.get(tenant_id)
        if entry is None or packed_state(entry) == DELETED:
            return False
        return unpack(entry)[0] in (rev, refusal and refusal.revision)

    def _count(self) -> None:
        self.live = sum(map(_lives, self.registry.index.values()))

    def _set(self, tenant_id: str, change: Change) -> None:
        previous = self.registry.prepared.get(tenant_id)
        current = change.context or (previous if change.refusal and not change.bars else None)
        if change.record is None:
            self._held.pop(tenant_id, None)
        else:
            self._held[tenant_id] = change.record
        self.registry.publish(tenant_id, change.entry, current, change.refusal)
        if current is None and change.record is None:
            self._claims.release(tenant_id)
        if previous is not None and previous is not current:
            self._let_go(tenant_id, previous, current)

    def _let_go(self, tenant_id: str, previous: TenantContext, current: TenantContext | None) -> None:
        try:
            self._retire(previous, current)
        # What a manager (anybody can write one) gets wrong must not keep other tenants from following.
        except Exception:
            logger.exception("letting go of what tenant %s had failed", tenant_id, extra={"tenant_id": tenant_id})


def _lives(entry: str | None) -> bool:
    return entry is not None and ":X:" not in entry


def _tells_nothing(change: Change) -> bool:
    return _lives(change.entry) and not (change.context or change.record or change.refusal)


def _judged(change: Change) -> Change:
    """What of a change can be: nothing is kept of a tenant that is gone, or whose entry cannot be understood."""
    if not _lives(change.entry):
        return Change(change.entry)
    assert change.entry is not None
    rev, state, _ = unpack(change.entry)
    if state in STATE_NAMES:
        return change
    what = "cannot be read" if state == "?" else f"has the state {state!r}, which this release does not know"
    return Change(change.entry, refusal=Refusal(rev, f"its entry in the store's index {what}", math.inf), bars=True)
