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
    DELETED,
    META_ID,
    PROVISIONING,
    STATE_NAMES,
    Op,
    StoredRecord,
)
from tenant_router.context_decorators import tenant_context_bind
from tenant_router.exceptions import ProvisioningError, RecordInvalid, TenantNotFound
from tenant_router.fleet.locks import Locks
from tenant_router.identity import alias_for, check_tenant_id
from tenant_router.lifecycle import begun as steps
from tenant_router.lifecycle import moves, seeding
from tenant_router.lifecycle.begun import Begun, Notes
from tenant_router.lifecycle.migrating import Migrator, said
from tenant_router.lifecycle.plan import Plan
from tenant_router.lifecycle.reference import provisioners, reference_context
from tenant_router.lifecycle.stamping import Consent, Stamping
from tenant_router.lifecycle.writer import Writer
from tenant_router.orm_backends.base import DatabaseIdentity
from tenant_router.orm_backends.places import section
from tenant_router.runtime import Runtime
from tenant_router.secrets import revealed
from tenant_router.tenant_context import FixedContext, TenantContext

Tell = Callable[[str], None]
NOTHING = "nothing was made"


class Provisioning:
    """Creates one tenant, or removes what was made for one that never became active."""

    def __init__(self, router: Runtime, tenant_id: str, tell: Tell = lambda step: None) -> None:
        self.tenant_id, self._tell = check_tenant_id(tenant_id), tell
        self._runtime, self._service, self._writer = router, router.conf.service, Writer(router)
        self._notes, self._locks = Notes(router.store), Locks(router.store)
        self._migrator = Migrator(router, self._locks)

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

    def undo(self, consent: Consent) -> list[str]:
        """Remove what was made, and the record; returns what that was. Asks for ``consent`` before."""
        with self._locks.holding(f"provision:{self.tenant_id}"):
            begun, held = self._to_undo()
            made = [name for orm in begun.names.values() for names in orm.values() for name in names.values()]
            consent(f"what was made for {self.tenant_id} is removed, if it is there: {', '.join(dict.fromkeys(made))}")
            self._notes.write(self.tenant_id, begun._replace(step=steps.UNDO))
            with self._explained(steps.UNDO):
                if held is not None:  # first, so that nobody activates it while its databases vanish
                    self._commit(Op(self.tenant_id, DELETED, expect=held.rev))
                removed = self._remove(begun)
            self._notes.write(self.tenant_id, None)
        return removed

    # --- what an earlier run has left ---

    def _found(self) -> tuple[Begun | None, StoredRecord | None]:
        """The note and the record of an earlier run that goes on; raises ``ProvisioningError`` if it cannot."""
        begun, held = self._notes.read(self.tenant_id), self._held()
        goes_on = {PROVISIONING, ACTIVE} if begun and begun.step == steps.ACTIVATE else {PROVISIONING}
        if begun and held and _is_of(held, begun) and held.state in goes_on and begun.step != steps.UNDO:
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

    def _to_undo(self) -> tuple[Begun, StoredRecord | None]:
        begun, held = self._notes.read(self.tenant_id), self._held()
        if begun is None:
            raise ProvisioningError(f"{self.tenant_id} is not being created, so there is nothing to undo")
        own = held if held and _is_of(held, begun) else None
        if (own or begun.step == steps.ACTIVATE) and not (own and own.state == PROVISIONING):
            self._notes.write(self.tenant_id, None)
            raise ProvisioningError(
                f"{self.tenant_id} was created and is served: nothing was removed (see 'tenant delete')"
            )
        self._check_unused(begun, own)
        return begun, own

    def _check_unused(self, begun: Begun, own: StoredRecord | None) -> None:
        """Refuse to remove a database that another record leads to by now."""
        index = self._writer.index()
        others = [t for t in index if t != META_ID and not (own and t == self.tenant_id)]
        occupied, orms = set[tuple[str, ...]](), self._runtime.orms
        for tenant_id, stored in self._writer.records(others).items():
            occupied |= moves.places(orms, tenant_id, self._writer.decoded(tenant_id, stored))
        made = {orm: {a: {"NAME": names["database"]} for a, names in of.items()} for orm, of in begun.names.items()}
        ours = moves.places(orms, self.tenant_id, {"orm_config": made})
        if moves.Occupied(self._runtime.orms, occupied).overlaps(ours):
            raise ProvisioningError(
                f"a record leads to a database that was made for {self.tenant_id}: nothing was removed"
            )

    def _check_same(self, record: Mapping[str, Any] | None, held: StoredRecord) -> None:
        stored = self._writer.decoded(self.tenant_id, held)
        if record and not _holds(revealed(stored), record):
            raise ProvisioningError(
                f"{self.tenant_id} is being created with another record: go on without --record, or --undo first"
            )

    def _held(self) -> StoredRecord | None:
        self._writer.index()  # which finds out of which history the store is
        try:
            return self._writer.record(self.tenant_id)
        except TenantNotFound:
            return None

    # --- the steps ---

    def _begin(self, given: Mapping[str, Any] | None, from_template: bool) -> tuple[Begun, StoredRecord]:
        """Look that nothing stands in the way, then write the note, and then the record."""
        try:
            record = self._completed(given or {})
            begun = Begun(token_hex(16), steps.RECORD, self._names(record))
            plan = self._plan(record, begun.incarnation)
            for provisioner, stamp, config in self._databases(begun, record):
                provisioner.check(stamp, config, from_template)
        except (ProvisioningError, RecordInvalid) as error:
            raise ProvisioningError(f"{error} ({NOTHING})") from error
        except Exception as error:  # a driver's
            raise ProvisioningError(f"{self.tenant_id} cannot be created: {said(error)} ({NOTHING})") from error
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

    def _remove(self, begun: Begun) -> list[str]:
        removed = list[str]()
        for manager, provisioner in provisioners(self._runtime):
            for alias, names in begun.names.get(manager.orm_id, {}).items():
                removed += provisioner.remove(self._stamp(begun, alias), names)
                self._migrator.note({alias_for(self.tenant_id, alias): None})
        return removed

    # --- inside ---

    @property
    def _seeded_alias(self) -> str:
        manager: Any = self._runtime.orms[seeding.ORM]
        return str(manager.default_template)

    def _completed(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """A record with what its managers can add; raises ``ProvisioningError`` and ``RecordInvalid``."""
        orm_config = given.get("orm_config", {})
        if isinstance(orm_config, Mapping):
            orm_config = {**orm_config, **dict(self._sections(orm_config))}
        record = {**given, "orm_config": orm_config}
        if faults := self._runtime.check_record(record):
            raise RecordInvalid(faults)
        return record

    def _sections(self, orm_config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        """What stands for each ORM where a record says ``orm_config``; what is no section is left to be refused."""
        makers = {manager.orm_id: provisioner for manager, provisioner in provisioners(self._runtime)}
        for orm_id, manager in self._runtime.orms.items():
            own = orm_config.get(orm_id, {})
            if orm_id in makers and _is_section(own):
                yield orm_id, makers[orm_id].complete(self._service, self.tenant_id, own)
            elif orm_id not in makers and (missing := [each for each in manager.template_aliases if each not in own]):
                raise ProvisioningError(f"what a record says of {orm_id}.{missing[0]} must be given, by --record")

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

    def _names(self, record: Mapping[str, Any]) -> dict[str, dict[str, Mapping[str, str]]]:
        return {
            manager.orm_id: provisioner.names(self.tenant_id, revealed(section(record, manager.orm_id)))
            for manager, provisioner in provisioners(self._runtime)
        }

    def _databases(self, begun: Begun, record: Mapping[str, Any]) -> Iterator[tuple[Any, DatabaseIdentity, Any]]:
        """Each database that is made: by whom, with what stamp, and what the record says of its ORM."""
        for manager, provisioner in provisioners(self._runtime):
            config = revealed(section(record, manager.orm_id))
            for alias in manager.template_aliases:
                yield provisioner, self._stamp(begun, alias), config

    def _stamp(self, begun: Begun, alias: str) -> DatabaseIdentity:
        return DatabaseIdentity(self._service, self.tenant_id, begun.incarnation, alias)

    def _current_references(self) -> dict[str, str]:
        """What the ledger has of the reference databases, if none of them needs anything."""
        found = dict[str, str]()
        for manager, provisioner in provisioners(self._runtime):
            current = self._migrator.is_current(manager, reference_context(self._runtime, manager, provisioner))
            if not current:
                return {}
            found.update(current)
        return found

    def _commit(self, op: Op) -> int:
        return self._writer.commit(Plan(ops=[op], epoch=self._writer.epoch))

    @contextmanager
    def _bindable(self, op: Op, revision: int) -> Iterator[FixedContext]:
        """What is bound to work on a record that nobody is served from."""
        context = self._writer.context(op, revision)
        try:
            yield FixedContext(context.id, context.revision, context.parts)
        finally:
            self._runtime.builder.retire(context, None)

    @contextmanager
    def _explained(self, step: str) -> Iterator[None]:
        """Say of an error where it has stopped, and how it goes on."""
        try:
            yield
        except Exception as error:
            what = str(error) if isinstance(error, ProvisioningError) else said(error)
            how = (
                "--undo again goes on"
                if step == steps.UNDO
                else "the same command goes on, --undo removes what it made"
            )
            raise ProvisioningError(f"{self.tenant_id} stopped at the step {step!r}: {what} ({how})") from error


def _is_of(held: StoredRecord, begun: Begun) -> bool:
    return codec.incarnation_of(held.body) == begun.incarnation


def _is_section(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(config, Mapping) for config in value.values())


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


def undo_provisioning(tenant_id: str, consent: Consent) -> list[str]:
    """Remove what was made for a tenant that never became active; returns what that was.

    ``consent`` is asked before, and raises if it must not be. Raises as :func:`provision`.
    """
    return Provisioning(runtime.get(), tenant_id).undo(consent)
