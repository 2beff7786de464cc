"""Random interleavings of units of work, threads, copied contexts, handles, changes and evictions, against a model.

What must hold after each step: a query reaches its own tenant's database, of the record that its unit of work began
with (the current one, where the unit is over), by whichever handle, or is refused; what a living unit uses stays open;
nothing that was replaced rests; and what is open beyond the limit is in use by a living unit.
"""

import os

import pytest

pytest.importorskip("pymongo")

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tenant_router import unit_of_work as units
from tenant_router.exceptions import TenantContextMissing, TenantDeleted, TenantMismatch, TooManyConnections
from tenant_router.orm_backends import budget as budget_module
from tests.fixtures_mongo import QUIET
from tests.integration.test_open_caches_model import stop_following
from tests.integration.workers_model import WORKER, Workers
from tests.mongo_wire import WireServer
from tests.tenants import collect_garbage

pytestmark = [pytest.mark.filterwarnings(rule) for rule in QUIET]
SCHEDULES = int(os.environ.get("TENANT_ROUTER_SCHEDULES", "30"))
LIMIT, TENANTS = 2, 4
TENANT = st.integers(0, TENANTS - 1)


class Clients(Workers):
    project = server = None
    examples = 0

    @initialize()
    def begin(self):
        Clients.examples += 1
        self.begin_with(Clients.examples)  # a place is a database and a cluster
        self.manager = self.project.manager
        self.kept = []  # (a collection, its tenant, its database)
        for tenant in range(TENANTS):
            self.change(tenant, tenant)

    # --- changes ---

    @rule(tenant=TENANT, cluster=TENANT)
    def change(self, tenant, cluster):
        """Another database, on a cluster that may be another tenant's too."""
        self.version += 1
        place = (f"m{self.number}_{self.version}", f"m{self.number}_{cluster}")
        record = self.project.record("x", HOST="127.0.0.1", PORT=self.server.port, OPTIONS={"appName": place[1]})
        record["orm_config"]["pymodm_orm"]["default"]["NAME"] = place[0]
        record["orm_config"]["django_orm"]["default"]["NAME"] = str(self.project.tenants.directory / place[0])
        self.project.tenants.put(self.id_of(tenant), record)
        self.project.runtime.reflector.synchronise()
        self.places[tenant] = place

    @rule(tenant=TENANT)
    def delete(self, tenant):
        self.delete_everywhere(self.project.tenants, tenant)

    # --- work ---

    @rule(worker=WORKER, tenant=TENANT, uses=st.booleans())
    def bind(self, worker, tenant, uses):
        self.bind_in(self.workers[worker], tenant, uses)

    @rule(worker=WORKER, tenants=st.lists(TENANT, min_size=1, max_size=4))
    def serve(self, worker, tenants):
        self.serve_in(self.workers[worker], tenants)

    @rule(worker=WORKER)
    def use(self, worker):
        me = self.workers[worker]
        if not me.blocks:
            with pytest.raises(TenantContextMissing):
                me.do(self.look)
            return
        self.use_bound(me)

    def use_bound(self, me):
        _, tenant, pinned = me.blocks[-1]
        found = self.asked(me, self.look)
        if found is not None:
            collection, database = found
            assert database == pinned[0]
            self.kept = [*self.kept[-3:], (collection, tenant, pinned[0])]

    def look(self):
        """Query the bound tenant's database; what was queried, and which one the server was asked for."""
        collection = self.manager.database_of("default").database["x"]
        collection.find_one()
        return collection, self.server.asked[-1][0]

    def asked(self, me, job):
        """What ``job`` returned; ``None`` where there was no room, which the model must say too."""
        used = self.used()
        try:
            return me.do(job)
        except TooManyConnections:
            assert len(used) >= LIMIT
            return None

    @precondition(lambda self: self.kept)
    @rule(worker=WORKER, which=st.integers(0, 3))
    def use_what_was_kept(self, worker, which):
        me = self.workers[worker]
        collection, tenant, name = self.kept[which % len(self.kept)]
        bound = me.blocks[-1] if me.blocks else None
        asked = len(self.server.asked)
        if bound is None:
            expected = TenantContextMissing
        elif bound[1] != tenant or bound[2][0] != name:
            expected = TenantMismatch
        else:
            if self.asked(me, collection.find_one):
                assert self.server.asked[-1][0] == name
            return
        with pytest.raises(expected):
            me.do(collection.find_one)
        assert len(self.server.asked) == asked

    # --- what outlives its unit, or runs in another thread within it ---

    @precondition(lambda self: any(worker.kept for worker in self.workers))
    @rule(worker=WORKER)
    def use_in_copy(self, worker):
        keeping = [each for each in self.workers if each.kept]
        me = keeping[worker % len(keeping)]
        kept, owner, unit, tenant, pinned = me.kept
        lives = unit is not None and owner.unit is unit
        # A copy that was used after its unit had ended has a unit of its own from then on, which pins in turn.
        if not lives and me.renewed is None and not me.denied:
            me.renewed, me.denied = self.places[tenant], self.places[tenant] is None
        try:
            found = self.asked(me, lambda: kept.run(self.look))
        except TenantDeleted:
            assert not lives
            assert me.denied
        else:
            assert not me.denied or lives
            assert found is None or found[1] == (pinned if lives else me.renewed)[0]

    # --- what must hold ---

    def used(self):
        """The clusters that living units use."""
        units.release_abandoned()
        return {home.cluster for unit in self.living() for home in [*unit.uses]}

    def looked(self):
        self.what_is_open_is_used_or_rests()

    @invariant()
    def what_is_open_is_used_or_rests(self):
        if not hasattr(self, "workers"):
            return
        if [*self.faults()]:
            self.collect()  # units may be garbage
            assert not [*self.faults()]

    def faults(self):
        used, clients = self.used(), self.manager.clients
        for cluster in used:
            if cluster.opened is None or cluster.opened.users < 1 or cluster.opened in clients.budget.idle:
                yield "closed, or may be, while a living unit uses it"
        open_now = {each for each in [*clients._clusters.values()] if each.opened is not None}
        if len(open_now) != clients.open_count() or len(open_now) > max(LIMIT, len(used)):
            yield f"{len(open_now)} are open, {clients.open_count()} are counted, {len(used)} are in use"
        for cluster in open_now - used:
            if cluster.opened.users:
                yield "somebody uses it, and no living unit does"
            if not cluster._wanted:
                yield "it rests, and nobody needs it"

    def collect(self):
        for me in self.workers:
            me.do(int)  # lets go of what it has done before
        collect_garbage()
        units.release_abandoned()

    def teardown(self):
        for me in self.workers:
            me.kept = me.unit = None
            while me.blocks:
                self.leave(me)
        self.kept.clear()
        for tenant in self.places:
            self.delete(tenant)
        self.collect()
        for me in self.workers:
            me.end()
        assert self.manager.clients.open_count() == 0


@pytest.fixture
def server():
    server = WireServer()
    yield server
    server.stop()


def test_every_query_reaches_its_own_tenants_database(mongo_project, server, monkeypatch):
    monkeypatch.setattr(budget_module, "WAIT_FOR_CONNECTION", 0.0)
    Clients.project, Clients.server = mongo_project("pymodm_orm", MAX_CLIENTS=LIMIT), server
    stop_following(Clients.project.tenants)
    run_state_machine_as_test(
        Clients,
        settings=settings(
            max_examples=SCHEDULES,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )
