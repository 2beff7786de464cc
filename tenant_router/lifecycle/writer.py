"""Writing to the config store: what a configuration changes, and committing it.

Everything is validated before it is published: by schema, by the managers, and against the
tenants that exist already. Writes are compare-and-set, so two writers cannot undo each other.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from tenant_router.config_store import codec
from tenant_router.config_store.base import (
    ACTIVE,
    DELETED,
    MAX_OPS,
    META_ID,
    PROVISIONING,
    Op,
    StoredRecord,
    packed_state,
    unpack,
)
from tenant_router.exceptions import EpochChanged, RecordInvalid, SerializerError, StoreError, TenantNotFound
from tenant_router.lifecycle.plan import CHANGED, CREATED, REMOVED, UNCHANGED, Plan
from tenant_router.lifecycle.validation import Validation
from tenant_router.runtime import Runtime

PAGE = 1_000  # records read at once


class PartlyCommitted(StoreError):
    """A load of several chunks stopped between two of them; running it again completes it."""


class Writer:
    """Reads what the store holds and plans and commits changes to it."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime, self._store = runtime, runtime.store
        self.epoch: str | None = None

    def index(self) -> dict[str, str]:
        """The whole index, packed, tombstones included; empty for a store that was never written."""
        try:
            self.epoch = self._store.head().epoch
        except EpochChanged:
            return {}
        return self._store.index()

    def records(self, tenant_ids: Sequence[str]) -> dict[str, StoredRecord]:
        """The stored records of those of ``tenant_ids`` that have one."""
        found: dict[str, StoredRecord] = {}
        for start in range(0, len(tenant_ids), PAGE):
            found.update(self._store.get_many(tenant_ids[start : start + PAGE]))
        return found

    def decoded(self, tenant_id: str, stored: StoredRecord) -> dict[str, Any] | None:
        """A stored record's content, or ``None`` where it cannot be read."""
        try:
            return codec.decode(tenant_id, stored.body, self._runtime.serializer)
        except SerializerError:
            return None

    def plan(
        self,
        records: Mapping[str, dict[str, Any]],
        metadata: Mapping[str, str],
        *,
        flush: bool,
        new_state: str = ACTIVE,
    ) -> Plan:
        """Compare a configuration with the store. ``flush``: tenants that it does not name are deleted.

        Raises ``RecordInvalid`` with every fault of the configuration, ``StoreError``.
        """
        index = self.index()
        live = [tenant_id for tenant_id, entry in index.items() if packed_state(entry) != DELETED]
        stored = self.records(live)
        others = () if flush else [t for t in stored if t not in records and t != META_ID]
        faults = list(Validation(self._runtime).faults(records, {t: self.decoded(t, stored[t]) or {} for t in others}))
        if faults:
            raise RecordInvalid(faults)
        plan = Plan(epoch=self.epoch)
        for tenant_id, record in records.items():
            self._put(plan, tenant_id, record, stored.get(tenant_id), index.get(tenant_id), new_state)
        self._put_metadata(plan, metadata, stored.get(META_ID), index.get(META_ID))
        if flush:
            for tenant_id in live:
                if tenant_id not in records and tenant_id != META_ID:
                    plan.outcomes[tenant_id] = REMOVED
                    plan.ops.append(Op(tenant_id, DELETED, expect=unpack(index[tenant_id])[0]))
        return plan

    def commit(self, plan: Plan, progress: Callable[[int], None] = lambda revision: None) -> int:
        """Write a plan, ``MAX_OPS`` operations at once, and return the last revision.

        Raises ``StoreError`` with nothing written, or ``PartlyCommitted`` naming the last revision.
        """
        revision = 0
        for start in range(0, len(plan.ops), MAX_OPS):
            try:
                revision = self._store.commit(
                    plan.ops[start : start + MAX_OPS], request_id=uuid.uuid4().hex, epoch=plan.epoch
                )
                if plan.epoch is None:
                    plan.epoch = self._store.head().epoch
            except StoreError as error:
                if start == 0:
                    raise
                raise PartlyCommitted(
                    f"stopped after {start} of {len(plan.ops)} changes, at revision {revision}: {error}; "
                    "run the command again to complete it"
                ) from error
            progress(revision)
        return revision

    def set_state(self, tenant_ids: Iterable[str], state: str) -> int:
        """Bring existing tenants to ``state``, their records unchanged; returns the revision.

        Raises ``TenantNotFound``, ``Conflict``, ``StoreError``.
        """
        wanted = list(tenant_ids)
        index, stored = self.index(), self.records(wanted)
        for tenant_id in wanted:
            if tenant_id not in stored or packed_state(index[tenant_id]) == DELETED:
                raise TenantNotFound(f"the store has no tenant {tenant_id!r}", tenant_id)
        ops = [Op(t, state, b"" if state == DELETED else stored[t].body, expect=stored[t].rev) for t in wanted]
        return self.commit(Plan(ops=ops, epoch=self.epoch))

    # --- inside ---

    def _put(
        self,
        plan: Plan,
        tenant_id: str,
        record: dict[str, Any],
        held: StoredRecord | None,
        entry: str | None,
        new_state: str,
    ) -> None:
        rev, state, _ = unpack(entry) if entry else (0, DELETED, "")
        exists = state != DELETED
        if state == PROVISIONING:
            plan.provisioning.append(tenant_id)
        if exists and self._holds(tenant_id, held, record):
            plan.outcomes[tenant_id] = UNCHANGED
            return
        plan.outcomes[tenant_id] = CHANGED if exists else CREATED
        body = codec.encode(tenant_id, record, self._runtime.serializer)
        plan.ops.append(Op(tenant_id, state if exists else new_state, body, expect=rev if exists else 0))

    def _holds(self, tenant_id: str, stored: StoredRecord | None, record: Mapping[str, Any]) -> bool:
        return stored is not None and codec.holds(tenant_id, stored.body, record, self._runtime.serializer)

    def _put_metadata(
        self, plan: Plan, metadata: Mapping[str, str], held: StoredRecord | None, entry: str | None
    ) -> None:
        record = {"mapping_metadata": dict(metadata)}
        if not self._holds(META_ID, held, record):
            body = codec.encode(META_ID, record, self._runtime.serializer)
            plan.ops.append(Op(META_ID, ACTIVE, body, expect=unpack(entry)[0] if entry else 0))
