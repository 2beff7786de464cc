"""From the store's state to what this process serves: what is read, held, published, refused and retired.

A record is built whole before anything of it is published, and it is published by one
assignment: databases and caches change together or not at all. A record that is refused
leaves the last good one serving. Nothing that a record causes leaves this module as an exception.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from tenant_router.config_store.base import DELETED, STATE_NAMES, Event, StoredRecord, packed_state, unpack
from tenant_router.exceptions import StoreUnavailable, TenantDeleted, TenantNotFound, TenantNotLoaded
from tenant_router.identity import is_tenant_id
from tenant_router.managers.registry import TenantContextManager
from tenant_router.reactive.applying import Applier
from tenant_router.reactive.building import Builder
from tenant_router.reactive.claims import Overlaps
from tenant_router.reactive.publishing import Change
from tenant_router.reactive.refusals import misfit, reason_of, refusal_of
from tenant_router.tenant_context import TenantContext

PAGE = 200  # records fetched at once
ATTEMPTS = 3  # reads of a record that changes while it is read
_WITH_RECORD = STATE_NAMES.keys() - {DELETED}

Fetch = Callable[[Sequence[str]], Mapping[str, StoredRecord]]


class Pipeline(Applier):
    """Applies the store's state to the registry: the whole index, single changes, first uses."""

    def __init__(self, registry: TenantContextManager, builder: Builder, eager_max: int) -> None:
        super().__init__(registry, builder)
        self.eager_max = eager_max

    # --- the whole index (SYNC) ---

    def vanishing(self, fresh: Mapping[str, str]) -> int:
        """How many tenants a :meth:`reconcile` with ``fresh`` would drop without their having been deleted."""
        return sum(1 for tenant_id in self.registry.get_known_ids() if tenant_id not in fresh)

    def reconcile(
        self, before: Mapping[str, str], fresh: dict[str, str], fetch: Fetch, *, same_history: bool = True
    ) -> bool:
        """Make the registry equal to the index ``fresh``: what is absent there goes, what differs is read again.

        ``before`` is a copy of the index that was here before ``fresh`` was read. ``False`` if others changed some
        of it meanwhile: all of it is to be read again. Of another history no last good record is left serving.
        """
        done = [self.publish(tenant_id, before[tenant_id], Change(None)) for tenant_id in before.keys() - fresh.keys()]
        differing = {t: entry for t, entry in fresh.items() if before.get(t) != entry} if before else dict(fresh)
        differing |= {t: fresh[t] for t in self.inconsistent() if t in fresh}
        asked = self._to_read(fresh, differing)
        for tenant_id in asked:
            del differing[tenant_id]
        wanted = asked + [t for t in self._note_all(before, differing) if t in fresh]
        if self._claims:  # of those who overlap the older one stays, in every process that starts
            wanted.sort(key=lambda tenant_id: _revision(fresh[tenant_id]))
        for start in range(0, len(wanted), PAGE):
            page = wanted[start : start + PAGE]
            records = fetch(page)
            done += [self._reconciled(t, before.get(t), fresh[t], records.get(t), same_history) for t in page]
        return all(done)

    def _to_read(self, fresh: Mapping[str, str], differing: Mapping[str, str]) -> list[str]:
        known = self.registry.prepared.keys() | self._held.keys()
        eager = sum(":X:" not in entry for entry in fresh.values()) <= self.eager_max
        asked: Iterable[str] = differing if eager else known & differing.keys()
        return [t for t in asked if packed_state(differing[t]) not in (DELETED, "?")]

    def _reconciled(
        self, tenant_id: str, before: str | None, entry: str, record: StoredRecord | None, same_history: bool
    ) -> bool:
        if before is None and record is not None and misfit(entry, record) is None:
            return self._hold(tenant_id, record)
        return self.apply(tenant_id, before, entry, record, same_history=same_history)

    def _hold(self, tenant_id: str, record: StoredRecord) -> bool:
        """Keep the record of a tenant that is new here: it is prepared at its first use."""
        with self._lock:
            if not self._says(tenant_id, None):
                return False
            try:
                self._claims.take(tenant_id, record.body)
            except Overlaps as error:
                refusal = refusal_of(tenant_id, record.packed, None, str(error), lasting=False)
                return self.publish(tenant_id, None, Change(record.packed, refusal=refusal))
            return self.publish(tenant_id, None, Change(record.packed, record=record))

    def _note_all(self, before: Mapping[str, str], entries: dict[str, str]) -> list[str]:
        """Take these entries, of which no record is needed; returns those of which one is needed after all.

        A cold process does it with 100,000 of which it holds nothing: those cost no call each.
        """
        with self._lock:
            told = self.registry.prepared.keys() | self.registry.refusals.keys() | self._held.keys()
            odd = {t for t, entry in entries.items() if entry[entry.index(":") + 1] not in STATE_NAMES}
            single = {t: entries.pop(t) for t in (told | odd) & entries.keys()}
            # nobody else publishes a tenant without preparing or refusing it
            self.registry.index.update(entries)
            self._count()
            return [t for t, entry in single.items() if not self.publish(t, before.get(t), Change(entry))]

    # --- single changes (WATCH) ---

    def wants(self, tenant_id: str) -> bool:
        """Whether a change of this tenant is to be read now, rather than at its first use."""
        return self.holds(tenant_id) or self.live < self.eager_max

    def revision_of(self, tenant_id: str) -> int:
        """The revision that the index has for the tenant; 0 if it is unknown."""
        return _revision(self.registry.index.get(tenant_id))

    def take(self, events: Sequence[Event], fetch: Fetch) -> None:
        """Take over what the log says, of each tenant the latest. Raises what ``fetch`` raises: then some are left."""
        latest = {event.tenant_id: event for event in events if is_tenant_id(event.tenant_id)}
        along = {event.tenant_id: event.record for event in latest.values() if event.record is not None}
        left: Sequence[Event] = list(latest.values())
        for _ in range(ATTEMPTS):
            left = self._take(left, along, fetch)
            if not left:
                return
            along = {}
        raise StoreUnavailable(f"{len(left)} tenants change faster than they can be read")

    def _take(self, events: Sequence[Event], along: Mapping[str, StoredRecord], fetch: Fetch) -> Sequence[Event]:
        """One attempt; returns the events that are left, because others published meanwhile."""
        before = {event.tenant_id: self.registry.index.get(event.tenant_id) for event in events}
        news = {event.tenant_id: event for event in events if event.rev > _revision(before[event.tenant_id])}
        wanted = {t: e for t, e in news.items() if e.state in _WITH_RECORD and self.wants(t)}
        left = [e for t, e in news.items() if t not in wanted and not self.note(t, before[t], e.packed)]
        records = {t: along[t] for t in wanted if t in along}
        missing = [tenant_id for tenant_id in wanted if tenant_id not in records]
        records |= fetch(missing) if missing else {}
        return left + [e for t, e in wanted.items() if not self.apply(t, before[t], e.packed, records.get(t))]

    # --- first use ---

    def load(self, tenant_id: str, fetch: Fetch) -> TenantContext:
        """Prepare a tenant that the index knows. Raises a ``TenantUnresolved``, or what ``fetch`` raises."""
        for _ in range(ATTEMPTS):
            before = self.registry.index.get(tenant_id)
            record = self._held.get(tenant_id) or fetch([tenant_id]).get(tenant_id)
            with self._lock:
                context = self.registry.prepared.get(tenant_id)
                if context is not None:
                    return context
                self._check_known(tenant_id)
                # Else a newer revision was announced while this one was read: it must not be undone.
                if before is not None and self.apply(tenant_id, before, before, record):
                    return self.registry.prepared.get(tenant_id) or self.registry.refused(tenant_id)
        raise TenantNotLoaded(f"the store does not show the latest record of tenant {tenant_id!r} yet", tenant_id)

    def adopt(self, tenant_id: str, before: str | None, record: StoredRecord) -> None:
        """Take a record that was found before its event came."""
        if record.rev > _revision(before):
            self.apply(tenant_id, before, record.packed, record)

    def refused_among(self, tenant_ids: Sequence[str], fetch: Fetch) -> list[str]:
        """What is wrong with these tenants' records; nothing is published. Raises what ``fetch`` raises."""
        held = {tenant_id: self._held[tenant_id] for tenant_id in tenant_ids if tenant_id in self._held}
        missing = [t for t in tenant_ids if t not in held and t not in self.registry.prepared]
        refused = []
        for tenant_id, record in {**held, **(fetch(missing) if missing else {})}.items():
            try:
                self._builder.build(tenant_id, record, None)
            except Exception as error:  # of any manager
                refused.append(f"tenant {tenant_id!r}: {reason_of(error)}")
        return refused

    # --- what could not be prepared, through no fault of the record ---

    @property
    def due_in(self) -> float:
        """Seconds until a record is to be tried again; infinite if there is none."""
        soonest = min((refusal.again for refusal in list(self.registry.refusals.values())), default=math.inf)
        return max(0.0, soonest - time.monotonic())

    def retry(self, fetch: Fetch) -> None:
        """Try again what is due. Raises what ``fetch`` raises."""
        now = time.monotonic()
        due = [t for t, refusal in list(self.registry.refusals.items()) if refusal.again <= now][:PAGE]
        if not due:
            return
        before = {tenant_id: self.registry.index.get(tenant_id) for tenant_id in due}
        records = fetch(due)
        for tenant_id, entry in before.items():
            if entry is not None:
                self.apply(tenant_id, entry, entry, records.get(tenant_id))

    # --- inside ---

    def _check_known(self, tenant_id: str) -> None:
        entry = self.registry.index.get(tenant_id)
        if entry is None:
            raise TenantNotFound(f"no tenant {tenant_id!r} is known any more", tenant_id)
        if packed_state(entry) == DELETED:
            raise TenantDeleted(f"tenant {tenant_id!r} was deleted", tenant_id)


def _revision(entry: str | None) -> int:
    return unpack(entry)[0] if entry else 0
