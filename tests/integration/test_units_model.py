"""Random interleavings of units of work, threads, copied contexts, changes and evictions, against a model.

What must hold after each step: a statement reaches its own tenant's database, of the revision that its unit of work
began with (the current one, where the unit is over); nothing rests that was replaced; and what is open beyond the
limit is in use by a living unit.
"""

import contextvars
import os

import pytest
from django.db import connection, connections, transaction
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from tenant_router.context_decorators import tenant_context_bind
from tenant_router.exceptions import TenantContextMissing, TenantDeleted, TooManyConnections, TransactionOpen
from tenant_router.orm_backends import budget as budget_module
from tenant_router.reactive import reflector
from tests.fixtures_orm import SQLITE
from tests.integration.workers_model import Worker
from tests.tenants import eventually

SCHEDULES = int(os.environ.get("TENANT_ROUTER_SCHEDULES", "200"))
STEPS = 30
WORKERS, LIMIT = 3, 2
WORKER = st.integers(0, WORKERS - 1)
TENANT = st.integers(0, 2)


class OnSqlite:
    """Each revision of a tenant has a file of its own."""

    question = "SELECT file FROM pragma_database_list WHERE name = 'main'"
    schedules = SCHEDULES

    def __init__(self, project):
        self.tenants = project({"default": SQLITE}, MAX_OPEN_CONNECTIONS=LIMIT)

    def record(self, schedule, version):
        return self.tenants.record(f"m{schedule}-{version}")

    def database(self, schedule, version):
        return f"m{schedule}-{version}.db"


class OnPostgres:
    """Each revision of a tenant has a database of its own, which the next schedule uses again."""

    question = "SELECT current_database()"
    schedules = SCHEDULES // 5

    def __init__(self, on_postgres):
        self._databases = on_postgres(max_open=LIMIT)
        self.tenants = self._databases.tenants
        for version in range(1, STEPS + 4):
            self._databases.server.create_database(self.database(0, version))

    def record(self, schedule, version):
        return self._databases.record(f"m{version}")

    def database(self, schedule, version):
        return self._databases.name(f"m{version}")


def database_of_connection(alias="default"):
    """The database that the server itself says is open."""
    with connections[alias].cursor() as cursor:
        cursor.execute(Units.databases.question)
        return os.path.basename(cursor.fetchone()[0])


class Units(RuleBasedStateMachine):
    databases = None
    examples = 0

    @initialize()
    def begin(self):
        Units.examples += 1
        self.number, self.version = Units.examples, 0
        self.files = {}
        self.tenants = self.databases.tenants
        self.workers = [Worker() for _ in range(WORKERS)]
        self.budget = self.tenants.runtime.orms["django_orm"].connections.budget
        for tenant in range(3):
            self.write(tenant)

    def id_of(self, tenant):
        return f"m{self.number}-{tenant}"

    def write(self, tenant):
        self.version += 1
        tenant_id = self.id_of(tenant)
        record = self.databases.record(self.number, self.version)
        self.tenants.arrived(tenant_id, self.tenants.put(tenant_id, record))
        self.files[tenant] = self.databases.database(self.number, self.version)

    # --- changes ---

    @rule(tenant=TENANT)
    def change(self, tenant):
        self.write(tenant)

    @rule(tenant=TENANT)
    def delete(self, tenant):
        tenant_id = self.id_of(tenant)
        self.tenants.arrived(tenant_id, self.tenants.delete(tenant_id))
        self.files[tenant] = None

    # --- work ---

    @rule(worker=WORKER, tenant=TENANT, other=WORKER, choice=st.integers(0, 9))
    def work(self, worker, tenant, other, choice):
        """What the worker can do now, and that often which tells something."""
        me = self.workers[worker]
        if choice == 9:
            self.copy(worker, other)
        elif choice == 8 and me.kept is not None:
            self.query_in_copy(worker)
        elif not me.blocks:
            self.query_by_alias(worker, tenant) if choice == 7 else self.bind(worker, tenant)
            self.query(worker)
        elif choice < 4:
            self.query(worker)
        elif choice == 4:
            self.bind(worker, tenant)
            self.query(worker)
        elif choice == 5 and me.atomic is None:
            self.begin_transaction(worker)
        elif choice == 5:
            self.end_transaction(worker)
        else:
            self.leave(worker)

    def bind(self, worker, tenant):
        me = self.workers[worker]
        pinned = next((file for _, bound, file in me.blocks if bound == tenant), self.files[tenant])
        block = tenant_context_bind(self.id_of(tenant))
        try:
            me.do(block.__enter__)
        except TenantDeleted:
            assert pinned is None
        except TransactionOpen:
            assert me.atomic is not None
            assert me.atomic != tenant
        else:
            assert pinned is not None
            assert me.atomic in (None, tenant)
            me.unit = me.unit or object()
            me.blocks.append((block, tenant, pinned))

    def leave(self, worker):
        me = self.workers[worker]
        if not me.blocks:
            return
        block, tenant, _ = me.blocks.pop()
        crossed = me.atomic is not None and (not me.blocks or me.blocks[-1][1] != tenant)
        try:
            me.do(lambda: block.__exit__(None, None, None))
        except TransactionOpen:
            assert crossed
        else:
            assert not crossed
        if crossed:
            me.atomic = None
        if all(bound != tenant for _, bound, _ in me.blocks):
            me.opened.pop(tenant, None)
        if not me.blocks:
            me.unit = None

    def query(self, worker):
        me = self.workers[worker]
        try:
            found, raw = me.do(lambda: (database_of_connection(), connections["default"].connection))
        except TenantContextMissing:
            assert not me.blocks
        except TooManyConnections:
            self.everything_is_in_use()
        else:
            assert found == me.blocks[-1][2]
            assert me.opened.setdefault(me.blocks[-1][1], raw) is raw

    def begin_transaction(self, worker):
        me = self.workers[worker]
        if not me.blocks or me.atomic is not None:
            return
        atomic = transaction.atomic()
        try:
            me.do(atomic.__enter__)
        except TooManyConnections:
            self.everything_is_in_use()
        else:
            me.atomic, me.ends = me.blocks[-1][1], atomic

    def end_transaction(self, worker):
        me = self.workers[worker]
        if me.atomic is not None:
            me.do(lambda: me.ends.__exit__(None, None, None))
            me.atomic = None

    def query_by_alias(self, worker, tenant):
        me = self.workers[worker]
        if me.blocks or self.files[tenant] is None:
            return
        try:
            found = me.do(lambda: database_of_connection(f"{self.id_of(tenant)}_default"))
            assert found == self.files[tenant]
        except TooManyConnections:
            self.everything_is_in_use()

    # --- what outlives its unit, or runs in another thread within it ---

    def copy(self, worker, other):
        me = self.workers[worker]
        bound = me.blocks[-1] if me.blocks else (None, None, None)
        kept = me.do(contextvars.copy_context)
        self.workers[other].kept = (kept, me, me.unit, bound[1], bound[2])
        self.workers[other].renewed, self.workers[other].denied = None, False

    def query_in_copy(self, worker):
        me = self.workers[worker]
        if me.kept is None:
            return
        kept, owner, unit, tenant, pinned = me.kept
        lives = unit is not None and owner.unit is unit
        expected = pinned if lives else self.files.get(tenant)
        try:
            found = me.do(lambda: kept.run(database_of_connection))
        except TenantContextMissing:
            assert tenant is None
        except TenantDeleted:
            assert expected is None or me.denied
            me.denied = True
        except TooManyConnections:
            self.everything_is_in_use()
        else:
            # A copy that was used after its unit had ended has a unit of its own from then on, which pins in turn.
            assert found == (expected if lives or me.renewed is None else me.renewed)
            me.renewed = None if lives else found

    # --- what must hold ---

    def everything_is_in_use(self):
        assert not [physical for physical in self.budget.idle if physical.borrower.may_rest()]

    @invariant()
    def nothing_rests_that_was_replaced(self):
        if hasattr(self, "budget"):
            with self.budget.lock:
                idle = [*self.budget.idle]
                assert not [physical for physical in idle if physical.borrower.users]
            eventually(lambda: not [physical for physical in [*self.budget.idle] if physical.database.retired])
            assert self.budget.open_count() <= LIMIT

    def teardown(self):
        for me in self.workers:
            if me.atomic is not None:
                me.do(lambda me=me: me.ends.__exit__(None, None, None))
            while me.blocks:
                block, _, _ = me.blocks.pop()
                me.do(lambda block=block: block.__exit__(None, None, None))
            me.kept = None
            me.opened.clear()
            me.do(connections.close_all)
            me.end()
        for tenant, database in self.files.items():
            if database is not None:
                self.tenants.arrived(self.id_of(tenant), self.tenants.delete(self.id_of(tenant)))
        eventually(lambda: self.budget.open_count() == 0)


@pytest.fixture(params=["sqlite", "postgres"])
def databases(request):
    if request.param == "sqlite":
        return OnSqlite(request.getfixturevalue("project"))
    return OnPostgres(request.getfixturevalue("on_postgres"))


@pytest.mark.timeout(3600)
def test_every_statement_reaches_its_own_tenant_at_its_own_revision(databases, monkeypatch):
    monkeypatch.setattr(budget_module, "WAIT_FOR_CONNECTION", 0.0)
    for name in ("PACE", "PACE_MAX"):  # who waits for each change need not wait for more of them
        monkeypatch.setattr(reflector, name, 0.0)
    Units.databases = databases
    run_state_machine_as_test(
        Units,
        settings=settings(
            max_examples=databases.schedules,
            stateful_step_count=STEPS,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )
    assert connection.alias == "default"
