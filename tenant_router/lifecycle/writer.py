"""Writing to the config store: what a configuration changes, and committing it.

Everything is validated before it is published: by schema, by the managers, and against the
tenants that exist already. Writes are compare-and-set, so two writers cannot undo each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from tenant_router.config_store import codec
from tenant_router.config_store.base import (
    ACTIVE,
    DELETED,
    MAX_BODY,
    META_ID,
    PROVISIONING,
    Op,
    StoredRecord,
    packed_state,
    unpack,
)
from tenant_router.exceptions import EpochChanged, RecordInvalid, SerializerError, TenantNotFound
from tenant_router.lifecycle import commits, moves
from tenant_router.lifecycle.fence import Fence
from tenant_router.lifecycle.plan import CHANGED, CREATED, REMOVED, UNCHANGED, Plan
from tenant_router.lifecycle.states import Transition
from tenant_router.lifecycle.validation import Validation
from tenant_router.runtime import Runtime
from tenant_router.tenant_context import TenantContext

PAGE = 1_000  # records read at once


class Writer:
    """Reads what the store holds and plans and commits changes to it."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime, self._store = runtime, runtime.store
        self._fence = Fence(runtime)
        self.epoch: str | None = None

    def index(self) -> dict[str, str]:
        """The whole index, packed, tombstones included; empty for a store that was never written."""
        try:
            self.epoch = self._store.head().epoch
        except EpochChanged:
            return {}
        return self._fence.index()

    def records(self, tenant_ids: Sequence[str]) -> dict[str, StoredRecord]:
        """The stored records of those of ``tenant_ids`` that have one."""
        found: dict[str, StoredRecord] = {}
        for start in range(0, len(tenant_ids), PAGE):
            found.update(self._store.get_many(tenant_ids[start : start + PAGE]))
        return found

    def record(self, tenant_id: str) -> StoredRecord:
        """One tenant's stored record. Raises ``TenantNotFound``, which tells a deleted one from an unknown one."""
        found = self.records([tenant_id]).get(tenant_id)
        if found is None or tenant_id == META_ID:
            raise TenantNotFound(_absent(tenant_id, self.index()), tenant_id)
        return found

    def decoded(self, tenant_id: str, stored: StoredRecord) -> dict[str, Any] | None:
        """A stored record's content, or ``None`` where it cannot be read."""
        try:
            return codec.decode(tenant_id, stored.body, self._runtime.serializer)
        except SerializerError:
            return None

    def context(self, op: Op, revision: int = 0) -> TenantContext:
        """What code is bound to under the record of ``op``, which need not be published. Raises ``RecordInvalid``."""
        record = StoredRecord(revision, op.state, op.digest, op.body)
        return self._runtime.builder.build(op.tenant_id, record, None)

    def plan(
        self,
        records: Mapping[str, dict[str, Any]],
        metadata: Mapping[str, str],
        *,
        flush: bool,
        migrate: bool = False,
    ) -> Plan:
        """Compare a configuration with the store. ``flush``: tenants that it does not name are deleted.

        ``migrate``: a new tenant is provisioning at first, and the record of one that leads to another database
        is withheld. Raises ``RecordInvalid`` with every fault of the configuration, ``StoreError``.
        """
        index = self.index()
        live = [tenant_id for tenant_id, entry in index.items() if packed_state(entry) != DELETED]
        stored = self.records(live)
        others = () if flush else [t for t in stored if t not in records and t != META_ID]
        faults = list(Validation(self._runtime).faults(records, {t: self.decoded(t, stored[t]) or {} for t in others}))
        plan = Plan(epoch=self.epoch)
        for tenant_id, record in {META_ID: {"mapping_metadata": dict(metadata)}, **records}.items():
            entry = index.get(tenant_id)
            faults += self._put(plan, tenant_id, record, stored.get(tenant_id), entry, migrate)
        if faults:
            raise RecordInvalid(faults)
        self._fence.validated(records, index)
        if flush:
            self._remove(plan, index, [t for t in live if t not in records and t != META_ID])
        self._withhold_takers(plan)
        # who leaves a database goes first: of a plan of several commits none may give it to two tenants
        plan.ops.sort(key=lambda op: (op.tenant_id != META_ID, op.state != DELETED, op.tenant_id not in plan.moved))
        return plan

    def plan_state(
        self, tenant_ids: Iterable[str], state: str, check: Callable[[str, str], bool] = lambda tenant_id, state: True
    ) -> Plan:
        """Bring existing tenants to ``state``, their records unchanged, from the revisions that they have now.

        ``check(tenant_id, state)`` says whether there is anything to do for a tenant in that state, and raises
        what it likes. Raises ``TenantNotFound``, ``StoreError``.
        """
        wanted = list(tenant_ids)
        index, stored = self.index(), self.records(wanted)
        plan = Plan(epoch=self.epoch)
        for tenant_id in wanted:
            held = stored.get(tenant_id)
            if held is None or tenant_id == META_ID:
                raise TenantNotFound(_absent(tenant_id, index), tenant_id)
            if check(tenant_id, held.state):
                body = b"" if state == DELETED else held.body
                plan.ops.append(Op(tenant_id, state, body, expect=held.rev))
        return plan

    def plan_transition(self, tenant_ids: Iterable[str], transition: Transition) -> Plan:
        """Suspend, resume or drain tenants. Raises ``StateRefused`` besides."""
        return self.plan_state(tenant_ids, transition.target, transition.check)

    def commit(self, plan: Plan, progress: Callable[[int], None] = lambda revision: None) -> int:
        """Write a plan and return the last revision.

        Raises ``StoreError`` with nothing written, ``RecordInvalid`` where somebody else published meanwhile what
        a record of the plan clashes with, ``Unconfirmed``, or ``PartlyCommitted`` naming the last revision.
        """
        revisions = commits.commit(self._fence, plan.ops, plan.epoch, progress)
        plan.revisions = {op.tenant_id: revision for op, revision in zip(plan.ops, revisions, strict=True)}
        return revisions[-1] if revisions else 0

    def commit_unchanged(self, plan: Plan, without: Callable[[list[Op], set[str]], list[Op]]) -> tuple[int, set[str]]:
        """Write what nobody else has changed since: the last revision, and the tenants that somebody has changed.

        ``without(ops, stale)``: which of ``ops`` may be written although those of the tenants ``stale`` are not.
        """
        return commits.commit_unchanged(self._fence, plan.ops, plan.epoch, without)

    def places(self, tenant_id: str, body: bytes) -> set[tuple[str, ...]]:
        """The databases of a record that no other tenant may have at the same time."""
        record = self.decoded(tenant_id, StoredRecord(0, ACTIVE, "", body))
        return moves.exclusive_places(self._runtime.orms, tenant_id, record)

    def places_before(self, plan: Plan, tenant_id: str) -> set[tuple[str, ...]]:
        """The same of what a tenant had when ``plan`` was made."""
        return moves.exclusive_places(self._runtime.orms, tenant_id, plan.before.get(tenant_id))

    def set_state(self, tenant_ids: Iterable[str], state: str) -> int:
        """Bring existing tenants to ``state``, their records unchanged; returns the revision.

        Raises ``TenantNotFound``, ``Conflict``, ``StoreError``.
        """
        return self.commit(self.plan_state(tenant_ids, state))

    # --- inside ---

    def _put(
        self,
        plan: Plan,
        tenant_id: str,
        record: dict[str, Any],
        held: StoredRecord | None,
        entry: str | None,
        migrate: bool,
    ) -> Iterator[tuple[str, str]]:
        """Plan what makes the store hold ``record``; what is wrong with it, by path."""
        rev, state, _ = unpack(entry) if entry else (0, DELETED, "")
        exists, is_tenant = state != DELETED, tenant_id != META_ID
        if state == PROVISIONING:
            plan.provisioning.append(tenant_id)
        if exists and self._holds(tenant_id, held, record):
            self._outcome(plan, tenant_id, UNCHANGED)
            return
        # what its databases are stamped with is no part of the configuration: it stays
        body, faults = self._encoded(tenant_id, record, codec.incarnation_of(held.body) if exists and held else "")
        yield from faults
        self._outcome(plan, tenant_id, CHANGED if exists else CREATED)
        before = self.decoded(tenant_id, held) if exists and held is not None else None
        plan.before[tenant_id], plan.after[tenant_id] = before, record
        moved = exists and is_tenant and moves.leads_elsewhere(self._runtime.orms, tenant_id, before, record)
        if moved:
            plan.moved.append(tenant_id)
        new_state = PROVISIONING if migrate and is_tenant else ACTIVE
        op = Op(tenant_id, state if exists else new_state, body, expect=rev if exists else 0)
        # a tenant that is provisioning serves nobody: its record may be published before it is migrated
        (plan.withheld if moved and migrate and state != PROVISIONING else plan.ops).append(op)

    def _withhold_takers(self, plan: Plan) -> None:
        """Publish who takes the database of a withheld tenant together with that one, and not before it has left."""
        places = {op.tenant_id: self.places(op.tenant_id, op.body) for op in plan.ops if op.state == PROVISIONING}
        staying = plan.withheld
        while staying and places:
            left = set[tuple[str, ...]]().union(*(self.places_before(plan, op.tenant_id) for op in staying))
            takers = {tenant_id for tenant_id, wanted in places.items() if wanted & left}
            staying = [op._replace(state=ACTIVE) for op in plan.ops if op.tenant_id in takers]
            plan.ops = [op for op in plan.ops if op.tenant_id not in takers]
            plan.withheld = plan.withheld + staying
            places = {tenant_id: places[tenant_id] for tenant_id in places.keys() - takers}

    def _outcome(self, plan: Plan, tenant_id: str, outcome: str) -> None:
        if tenant_id != META_ID:
            plan.outcomes[tenant_id] = outcome

    def _encoded(
        self, tenant_id: str, record: Mapping[str, Any], incarnation: str
    ) -> tuple[bytes, list[tuple[str, str]]]:
        path = "$.mapping_metadata" if tenant_id == META_ID else f"$.tenant_config[{tenant_id!r}]"
        try:
            body = codec.encode(tenant_id, record, self._runtime.serializer, incarnation)
        except SerializerError as error:
            return b"", [(path, str(error))]
        if len(body) > MAX_BODY:
            return body, [(path, f"is too large: stored it has {len(body):,} bytes, and {MAX_BODY:,} are allowed")]
        return body, []

    def _remove(self, plan: Plan, index: Mapping[str, str], tenant_ids: Iterable[str]) -> None:
        for tenant_id in tenant_ids:
            plan.outcomes[tenant_id] = REMOVED
            plan.ops.append(Op(tenant_id, DELETED, expect=unpack(index[tenant_id])[0]))

    def _holds(self, tenant_id: str, stored: StoredRecord | None, record: Mapping[str, Any]) -> bool:
        return stored is not None and codec.holds(tenant_id, stored.body, record, self._runtime.serializer)


def _absent(tenant_id: str, index: Mapping[str, str]) -> str:
    known = tenant_id in index and tenant_id != META_ID
    return f"tenant {tenant_id!r} was deleted" if known else f"the store has no tenant {tenant_id!r}"
