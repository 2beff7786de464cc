"""One change of a tenant: its record is prepared and published, or refused."""

from __future__ import annotations

import logging
import os
import time

from tenant_router.config_store.base import STATE_NAMES, StoredRecord, unpack
from tenant_router.exceptions import RecordInvalid, SerializerError
from tenant_router.managers.registry import TenantContextManager
from tenant_router.reactive.building import Builder
from tenant_router.reactive.claims import Overlaps
from tenant_router.reactive.publishing import Change, Publisher
from tenant_router.reactive.refusals import is_time_limit, misfit, reason_of, refusal_of
from tenant_router.secrets import without_frames
from tenant_router.tenant_context import TenantContext

logger = logging.getLogger(__name__)


class Applier(Publisher):
    """Applies changes of single tenants, of which a record that is refused leaves the last good one serving."""

    def __init__(self, registry: TenantContextManager, builder: Builder) -> None:
        super().__init__(registry, builder.retire, builder.claims)
        self._builder = builder
        self.applied = 0  # changes taken over since the process began

    def note(self, tenant_id: str, before: str | None, entry: str) -> bool:
        """Take a change of which no record is needed: a deletion, or a tenant that nobody has used here yet."""
        started, previous = time.monotonic(), self.registry.prepared.get(tenant_id)
        if not self.publish(tenant_id, before, Change(entry)):
            return False
        self._taken(tenant_id, entry, previous, started)
        return True

    def apply(
        self,
        tenant_id: str,
        before: str | None,
        announced: str,
        record: StoredRecord | None,
        *,
        same_history: bool = True,
    ) -> bool:
        """Prepare and publish a record that was read after the index said ``before`` here; refuse a bad one.

        ``announced`` is the entry that it must have, or an older one. ``False`` if others published meanwhile.
        """
        started = time.monotonic()
        with self._lock:
            if not self._says(tenant_id, before):
                return False
            previous = self.registry.prepared.get(tenant_id)
            change = self._change(tenant_id, announced, record, previous)
            if change.refusal is not None and not same_history:
                change = change._replace(context=None, bars=True)
            self.publish(tenant_id, before, change)
        if change.context is not None and change.refusal is None and change.entry != before:
            self._taken(tenant_id, announced if record is None else record.packed, previous, started)
        return True

    def _change(
        self, tenant_id: str, announced: str, record: StoredRecord | None, previous: TenantContext | None
    ) -> Change:
        """What becomes of a tenant whose index announces ``announced``, and whose record is ``record``."""
        known, wrong = self.registry.refusals.get(tenant_id), misfit(announced, record)
        if record is None or wrong is not None:
            assert wrong is not None
            return Change(announced, refusal=refusal_of(tenant_id, announced, known, wrong, lasting=False), bars=True)
        if record.state not in STATE_NAMES:
            return Change(record.packed)
        try:
            context = self._builder.build(tenant_id, record, previous)
            self._claims.take(tenant_id, record.body)
            return Change(record.packed, context)
        except (RecordInvalid, SerializerError) as error:
            refusal = refusal_of(tenant_id, record.packed, known, reason_of(error), lasting=True)
        except Overlaps as error:
            refusal = refusal_of(tenant_id, record.packed, known, str(error), lasting=False)
        except Exception as error:  # the process lacks something, or a manager is wrong: the record need not be
            if is_time_limit(error):
                raise without_frames(error)  # whose variables may be what the record says
            refusal = refusal_of(tenant_id, record.packed, known, reason_of(error), lasting=False, trace=error)
        return Change(record.packed, previous or self._last_good(tenant_id, record), refusal=refusal)

    def _last_good(self, tenant_id: str, refused: StoredRecord) -> TenantContext | None:
        """The record before a refused one, where nobody has used it yet, so that it was never prepared."""
        held = self._held.get(tenant_id)
        if held is None or held.packed == refused.packed:
            return None
        try:
            return self._builder.build(tenant_id, held, None)
        except Exception:  # it was not good either
            return None

    def _taken(self, tenant_id: str, entry: str, previous: TenantContext | None, started: float) -> None:
        self.applied += 1
        rev, state, _ = unpack(entry)
        _log_cutover(tenant_id, rev, state, previous, started)


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
