"""From the store's state to what this process serves: what is read, held, published, refused and retired.

A record is built whole before anything of it is published, and it is published by one
assignment: databases and caches change together or not at all. A record that is refused
leaves the last good one serving.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from tenant_router.config_store.base import DELETED, StoredRecord, packed_state, unpack
from tenant_router.context import TenantContext
from tenant_router.exceptions import TenantDeleted, TenantMisconfigured, TenantNotLoaded, TenantRouterError
from tenant_router.managers.registry import Refusal, TenantContextManager
from tenant_router.reactive.building import Builder

logger = logging.getLogger(__name__)

PAGE = 200  # records fetched at once
LOAD_ATTEMPTS = 3  # reads of a record that changes while it is read


Fetch = Callable[[Sequence[str]], Mapping[str, StoredRecord]]


class Pipeline:
    """Applies the store's state to the registry. One change at a time; the lock is never held during I/O."""

    def __init__(self, registry: TenantContextManager, builder: Builder, eager_max: int) -> None:
        self.registry, self.eager_max = registry, eager_max
        self.applied = 0  # changes taken over since the process began
        self._builder = builder
        self.reset_after_fork()
        # Records that were read and not looked at yet: they are prepared when first used.
        self._held: dict[str, StoredRecord] = {}

    def reset_after_fork(self) -> None:
        """The parent's threads do not exist in a child, so neither may a lock of theirs."""
        self._lock = threading.RLock()

    # --- the whole index (SYNC) ---

    def vanishing(self, fresh: Mapping[str, str]) -> int:
        """How many tenants a :meth:`reconcile` with ``fresh`` would drop without their having been deleted."""
        return sum(1 for tenant_id in self.registry.get_known_ids() if tenant_id not in fresh)

    def reconcile(self, fresh: dict[str, str], fetch: Fetch) -> None:
        """Make the registry equal to the index ``fresh``: what is absent there goes, what differs is read again."""
        index = self.registry.index
        for tenant_id in index.keys() - fresh.keys():
            self._remove(tenant_id, None)
        changed = {t: entry for t, entry in fresh.items() if index.get(t) != entry} if index else dict(fresh)
        known = self.registry.prepared.keys() | self._held.keys()
        asked = list(changed) if len(fresh) <= self.eager_max else known & changed.keys()
        wanted = [tenant_id for tenant_id in asked if packed_state(changed[tenant_id]) != DELETED]
        for tenant_id in wanted:
            del changed[tenant_id]
        self._note_all(changed)
        for start in range(0, len(wanted), PAGE):
            page = wanted[start : start + PAGE]
            for tenant_id, record in fetch(page).items():
                if tenant_id in index:
                    self.apply(tenant_id, record)
                else:
                    self._hold(tenant_id, record)

    # --- single changes (WATCH) ---

    def wants(self, tenant_id: str) -> bool:
        """Whether a change of this tenant is to be read now, rather than at its first use."""
        return self._holds(tenant_id) or len(self.registry.index) < self.eager_max

    def revision_of(self, tenant_id: str) -> int:
        """The revision that the index has for the tenant; 0 if it is unknown."""
        entry = self.registry.index.get(tenant_id)
        return unpack(entry)[0] if entry else 0

    def note(self, tenant_id: str, entry: str) -> None:
        """Take a change of which no record is needed: a deletion, or a tenant that nobody has used here yet."""
        started, previous = time.monotonic(), self.registry.prepared.get(tenant_id)
        self._note(tenant_id, entry)
        self.applied += 1
        rev, state, _ = unpack(entry)
        _log_cutover(tenant_id, rev, state, previous, started)

    def apply(self, tenant_id: str, record: StoredRecord) -> None:
        """Prepare and publish a record; refuse a bad one and keep the last good one."""
        started = time.monotonic()
        entry = record.packed
        with self._lock:
            previous = self.registry.prepared.get(tenant_id)
            try:
                context = self._builder.build(tenant_id, record, previous)
            except TenantRouterError as error:
                self._refuse(tenant_id, record, str(error))
                return
            self._held.pop(tenant_id, None)
            self.registry.publish(tenant_id, entry, context)
            if previous is not None:
                self._builder.retire(previous, context)
        self.applied += 1
        _log_cutover(tenant_id, record.rev, record.state, previous, started)

    # --- first use ---

    def load(self, tenant_id: str, fetch: Fetch) -> TenantContext:
        """Prepare a tenant that the index knows. Raises a ``TenantUnavailable``, or what ``fetch`` raises."""
        for _ in range(LOAD_ATTEMPTS):
            record = self._held.get(tenant_id) or fetch([tenant_id]).get(tenant_id)
            with self._lock:
                context = self.registry.prepared.get(tenant_id)
                if context is not None:
                    return context
                if self._is_deleted(tenant_id):
                    raise TenantDeleted(f"tenant {tenant_id!r} was deleted", tenant_id)
                if record is None:
                    raise TenantMisconfigured(f"the store has no record of tenant {tenant_id!r}", tenant_id)
                # Else a newer revision was announced while this one was read: it must not be undone.
                if record.rev >= self.revision_of(tenant_id):
                    return self._build_or_refuse(tenant_id, record)
        raise TenantNotLoaded(f"the store does not show the latest record of tenant {tenant_id!r} yet", tenant_id)

    def adopt(self, tenant_id: str, record: StoredRecord) -> None:
        """Take a record that was found before its event came."""
        with self._lock:
            if record.rev > self.revision_of(tenant_id):
                self.apply(tenant_id, record)

    def refused_among(self, tenant_ids: Sequence[str], fetch: Fetch) -> list[str]:
        """What is wrong with these tenants' records; nothing is published. Raises what ``fetch`` raises."""
        held = {tenant_id: self._held[tenant_id] for tenant_id in tenant_ids if tenant_id in self._held}
        missing = [t for t in tenant_ids if t not in held and t not in self.registry.prepared]
        refused = []
        for tenant_id, record in {**held, **(fetch(missing) if missing else {})}.items():
            try:
                self._builder.build(tenant_id, record, None)
            except TenantRouterError as error:
                refused.append(f"tenant {tenant_id!r}: {error}")
        return refused

    # --- inside ---

    def _holds(self, tenant_id: str) -> bool:
        return tenant_id in self.registry.prepared or tenant_id in self._held

    def _is_deleted(self, tenant_id: str) -> bool:
        entry = self.registry.index.get(tenant_id)
        return entry is not None and packed_state(entry) == DELETED

    def _hold(self, tenant_id: str, record: StoredRecord) -> None:
        self._held[tenant_id] = record
        self.registry.publish(tenant_id, record.packed, None)

    def _note(self, tenant_id: str, entry: str) -> None:
        if packed_state(entry) == DELETED:
            self._remove(tenant_id, entry)
        else:
            with self._lock:
                self.registry.refusals.pop(tenant_id, None)
                self.registry.publish(tenant_id, entry, None)

    def _note_all(self, entries: dict[str, str]) -> None:
        """:meth:`_note` for many, which it uses up: a cold process does it with 100,000 of which it holds nothing."""
        with self._lock:
            known = self.registry.prepared.keys() | self.registry.refusals.keys() | self._held.keys()
            for tenant_id in known & entries.keys():
                self._note(tenant_id, entries.pop(tenant_id))
            self.registry.index.update(entries)

    def _remove(self, tenant_id: str, entry: str | None) -> None:
        with self._lock:
            self._held.pop(tenant_id, None)
            previous = self.registry.withdraw(tenant_id, entry)
            if previous is not None:
                self._builder.retire(previous, None)

    def _build_or_refuse(self, tenant_id: str, record: StoredRecord) -> TenantContext:
        try:
            context = self._builder.build(tenant_id, record, None)
        except TenantRouterError as error:
            self._refuse(tenant_id, record, str(error))
            raise TenantMisconfigured(
                f"the configuration of tenant {tenant_id!r} was refused: {error}", tenant_id
            ) from error
        self._held.pop(tenant_id, None)
        self.registry.publish(tenant_id, record.packed, context)
        return context

    def _refuse(self, tenant_id: str, record: StoredRecord, reason: str) -> None:
        held = self._held.get(tenant_id)
        if held is not None and held is not record and tenant_id not in self.registry.prepared:
            # The good record before this one was never used, so it was never prepared either.
            self._build_or_refuse(tenant_id, held)
        self._held.pop(tenant_id, None)
        self.registry.publish(tenant_id, record.packed, None)
        self.registry.refusals[tenant_id] = Refusal(record.rev, reason)
        logger.error(
            "tenant %s: the record of revision %d is refused: %s",
            tenant_id,
            record.rev,
            reason,
            extra={"tenant_id": tenant_id},
        )


def _log_cutover(tenant_id: str, rev: int, state: str, previous: TenantContext | None, started: float) -> None:
    now = time.monotonic()
    logger.info(
        "applied tenant=%s revision=%d state=%s previous=%d pid=%d monotonic=%.6f took_ms=%.2f",
        tenant_id,
        rev,
        state,
        previous.revision if previous else 0,
        os.getpid(),
        now,
        (now - started) * 1000,
        extra={"tenant_id": tenant_id},
    )
