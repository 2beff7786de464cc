"""Creating a tenant: its record, its databases, its first data. Whoever is killed is gone on from where it stood.

Each step is noted in the config store before it is begun, and can be done again. A database is made together with a
mark that says for whom, so what is there is known to be ours or somebody else's, which nothing here touches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from secrets import token_hex
from typing import Any

from tenant_router import runtime
from tenant_router.config_store import codec
from tenant_router.config_store.base import (
    ACTIVE,
    META_ID,
    PROVISIONING,
    STATE_NAMES,
    Op,
    StoredRecord,
)
from tenant_router.context_decorators import tenant_context_bind
from tenant_router.exceptions import ProvisioningError, RecordInvalid, one_line
from tenant_router.identity import alias_for
from tenant_router.lifecycle import begun as steps
from tenant_router.lifecycle import new_record, seeding
from tenant_router.lifecycle.begun import Begun
from tenant_router.lifecycle.plan import Plan
from tenant_router.lifecycle.reference import provisioners, reference_context
from tenant_router.lifecycle.stamping import Stamping
from tenant_router.lifecycle.work import Tell, Work, is_of
from tenant_router.orm_backends.base import DatabaseIdentity
from tenant_router.orm_backends.places import section
from tenant_router.secrets import revealed
from tenant_router.tenant_context import FixedContext, TenantContext

NOTHING = "nothing was made"


class Provisioning(Work):
    """Creates one tenant."""

    def create(self, record: Mapping[str, Any] | None, from_template: bool, seed: Sequence[str]) -> int:
        """Create the tenant, or go on with it; returns the revision at which it is active."""
        with self._locks.holding(f"provision:{self.tenant_id}"):
            begun, held = self._found()
            if begun and held and held.state == ACTIVE:  # it was killed after that
                self._notes.write(self.tenant_id, None)
                return held.rev
            if begun and held:
                self._check_same(record, held)
            else:
                begun, held = self._begin(record, from_template)
            return self._go_on(begun, held, from_template, seed)

    # --- what an earlier run has left ---

    def _found(self) -> tuple[Begun | None, StoredRecord | None]:
        """The note and the record of an earlier run that goes on; raises ``ProvisioningError`` if it cannot."""
        begun, held = self._notes.read(self.tenant_id), self._held()
        goes_on = {PROVISIONING, ACTIVE} if begun and begun.step == steps.ACTIVATE else {PROVISIONING}
        if begun and held and is_of(held, begun) and held.state in goes_on and begun.step != steps.UNDO:
            return begun, held
        if begun and begun.step in (steps.RECORD, steps.ACTIVATE):  # it has made nothing, or all
            self._notes.write(self.tenant_id, None)
            begun = None
        if held:
            state = STATE_NAMES.get(held.state, held.state)
            raise ProvisioningError(f"tenant {self.tenant_id!r} exists already and is {state}: {NOTHING}")
        if begun:
            what = "is being removed" if begun.step == steps.UNDO else f"was deleted at the step {begun.step!r}"
            raise ProvisioningError(
                f"what an earlier run has made for {self.tenant_id} {what}: finish that with --undo"
            )
        return None, None

    def _check_same(self, record: Mapping[str, Any] | None, held: StoredRecord) -> None:
        stored = self._writer.decoded(self.tenant_id, held)
        if record and not _holds(revealed(stored), record):
            raise ProvisioningError(
                f"{self.tenant_id} is being created with another record: go on without --record, or --undo first"
            )

    # --- the steps ---

    def _begin(self, given: Mapping[str, Any] | None, from_template: bool) -> tuple[Begun, StoredRecord]:
        """Look that nothing stands in the way, then write the note, and then the record."""
        try:
            record = new_record.completed(self._runtime, self.tenant_id, given or {})
            begun = Begun(token_hex(16), steps.RECORD, new_record.names(self._runtime, self.tenant_id, record))
            plan = self._plan(record, begun.incarnation)
            for provisioner, stamp, config in self._databases(begun, record):
                provisioner.check(stamp, config, from_template)
        except (ProvisioningError, RecordInvalid) as error:
            raise ProvisioningError(f"{error} ({NOTHING})") from error
        except Exception as error:  # a driver's
            raise ProvisioningError(f"{self.tenant_id} cannot be created: {one_line(error)} ({NOTHING})") from error
        self._notes.write(self.tenant_id, begun)
        with self._explained(steps.RECORD):
            self._writer.commit(plan)
            return begun, self._writer.record(self.tenant_id)

    def _go_on(self, begun: Begun, held: StoredRecord, from_template: bool, seed: Sequence[str]) -> int:
        op = Op(self.tenant_id, PROVISIONING, held.body, expect=held.rev)
        with self._bindable(op, held.rev) as context:
            work: dict[str, Callable[[], object]] = {
                steps.CREATE: lambda: self._create(begun, held, context, from_template),
                steps.STAMP: lambda: Stamping(self._runtime, self._writer).claim(op),
                steps.MIGRATE: lambda: self._migrator.migrate(self._runtime.orms.values(), context),
                steps.SEED: lambda: self._seed(context, seed),
                steps.ACTIVATE: lambda: self._unseed(context, bool(seed) or begun.step in (steps.SEED, steps.ACTIVATE)),
            }
            for step, do in work.items():
                if begun.step == steps.ACTIVATE != step:
                    continue  # all was done, and what was loaded is not marked any more
                self._notes.write(self.tenant_id, begun._replace(step=step))
                self._tell(step)
                with self._explained(step):
                    do()
        with self._explained(steps.ACTIVATE):
            revision = self._commit(op._replace(state=ACTIVE))
        self._notes.write(self.tenant_id, None)
        return revision

    def _create(self, begun: Begun, held: StoredRecord, context: TenantContext, from_template: bool) -> None:
        record = self._writer.decoded(self.tenant_id, held) or {}
        current = self._current_references() if from_template else {}
        made = set[str]()
        for provisioner, stamp, config in self._databases(begun, record):
            if provisioner.create(stamp, config, from_template):
                made.add(alias_for(self.tenant_id, stamp.alias))
                self._migrator.note({alias_for(self.tenant_id, stamp.alias): None})
        if current and current == self._current_references():  # all the time, so also when they were copied
            for manager, _ in provisioners(self._runtime):
                wanted = self._migrator.fingerprints(manager, context)
                self._migrator.note({alias: wanted[alias] for alias in made & wanted.keys()})

    def _seed(self, context: TenantContext, fixtures: Sequence[str]) -> None:
        if fixtures:
            with tenant_context_bind(context):
                seeding.seed(self._seeded_alias, fixtures)

    def _unseed(self, context: TenantContext, loaded: bool) -> None:
        """``loaded``: whether this run, or one before it, may have left a mark."""
        if loaded and seeding.ORM in self._runtime.orms:
            with tenant_context_bind(context):
                seeding.forget(self._seeded_alias)

    # --- inside ---

    @property
    def _seeded_alias(self) -> str:
        manager: Any = self._runtime.orms[seeding.ORM]
        return str(manager.default_template)

    def _plan(self, record: dict[str, Any], incarnation: str) -> Plan:
        """What publishes the record as provisioning, and with what its databases are stamped with."""
        stored = self._writer.records([META_ID]).get(META_ID)
        metadata = (self._writer.decoded(META_ID, stored) or {}).get("mapping_metadata", {}) if stored else {}
        plan = self._writer.plan({self.tenant_id: record}, metadata, flush=False, migrate=True)
        plan.ops = [
            op._replace(body=codec.stamped(op.body, incarnation)) if op.tenant_id == self.tenant_id else op
            for op in plan.ops
        ]
        return plan

    def _databases(self, begun: Begun, record: Mapping[str, Any]) -> Iterator[tuple[Any, DatabaseIdentity, Any]]:
        """Each database that is made: by whom, with what stamp, and what the record says of its ORM."""
        for manager, provisioner in provisioners(self._runtime):
            config = revealed(section(record, manager.orm_id))
            for alias in manager.template_aliases:
                yield provisioner, self._stamp(begun, alias), config

    def _current_references(self) -> dict[str, str]:
        """What the ledger has of the reference databases, if none of them needs anything."""
        found = dict[str, str]()
        for manager, provisioner in provisioners(self._runtime):
            current = self._migrator.is_current(manager, reference_context(self._runtime, manager, provisioner))
            if not current:
                return {}
            found.update(current)
        return found

    @contextmanager
    def _bindable(self, op: Op, revision: int) -> Iterator[FixedContext]:
        """What is bound to work on a record that nobody is served from."""
        context = self._writer.context(op, revision)
        try:
            yield FixedContext(context.id, context.revision, context.parts)
        finally:
            self._runtime.builder.retire(context, None)


def _holds(stored: Any, given: Any) -> bool:
    """Whether all that ``given`` says stands in ``stored``."""
    if isinstance(given, Mapping) and isinstance(stored, Mapping):
        return all(key in stored and _holds(stored[key], value) for key, value in given.items())
    return bool(stored == given)


def provision(
    tenant_id: str,
    *,
    record: Mapping[str, Any] | None = None,
    from_template: bool = False,
    seed: Sequence[str] = (),
    tell: Tell = lambda step: None,
) -> int:
    """Create a tenant: record, databases, migrations, fixtures; returns the revision at which it is active.

    ``record``: what a configuration file has for one tenant and this service; what can be derived may be left out.
    ``from_template``: copy the reference databases instead of migrating new ones. ``seed``: fixtures for ``loaddata``.
    ``tell`` hears each step. After a failure the same call goes on from there. Raises ``InvalidTenantId``,
    ``ProvisioningError``, ``Locked`` and ``StoreError``.
    """
    return Provisioning(runtime.get(), tenant_id, tell).create(record, from_template, seed)
