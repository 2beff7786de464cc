"""Random interleavings of units of work, threads, copied contexts, changes and evictions, against a model of caches.

What must hold after each step: a cache reads its own tenant's entries, at the location of the revision that its unit of
work began with (the current one, where the unit is over); what a living unit uses stays open and is nobody else's;
nothing that was replaced rests; and what is open beyond the limit is in use by a living unit.
"""

import os

import pytest
from django.core.cache import cache, caches
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tenant_router import context
from tenant_router import unit_of_work as units
from tenant_router.exceptions import TenantContextMissing, TenantDeleted
from tests.integration.cache_backends import Connected
from tests.integration.test_caches import project  # noqa: F401 - a fixture
from tests.integration.test_open_caches import CONNECTED, limited  # noqa: F401 - a fixture
from tests.integration.workers_model import WORKER, Workers
from tests.tenants import collect_garbage, eventually

SCHEDULES = int(os.environ.get("TENANT_ROUTER_SCHEDULES", "100"))
LIMIT = 2
TENANT = st.integers(0, 2)


def look():
    """Which place is asked here, and by which backend; it holds the bound tenant's own entry."""
    backend = caches.backend("default")
    tenant_id = context.current().id
    assert cache.get_or_set("who", tenant_id) == tenant_id, "another tenant's entry"
    return backend.location, backend


class OpenCaches(Workers):
    project = None
    examples = 0

    @initialize()
    def begin(self):
        OpenCaches.examples += 1
        self.begin_with(OpenCaches.examples)
        Connected.everyone.clear()
        for tenant in range(3):
            self.write(tenant)

    def write(self, tenant):
        self.version += 1
        self.place(tenant, f"m{self.number}-{self.version}")

    def place(self, tenant, place):
        """Have ``tenant`` keep its entries at ``place``, beside whoever else is there."""
        made, tenant_id = self.project.tenants, self.id_of(tenant)
        made.put(tenant_id, made.record("one", cache_config={"default": {"LOCATION": place}}))
        made.runtime.reflector.synchronise()
        self.places[tenant] = place

    # --- changes ---

    @rule(tenant=TENANT)
    def change(self, tenant):
        self.write(tenant)

    @rule(tenant=TENANT, other=TENANT)
    def move_in_with(self, tenant, other):
        if self.places[other] is not None:
            self.place(tenant, self.places[other])

    @rule(tenant=TENANT)
    def delete(self, tenant):
        self.delete_everywhere(self.project.tenants, tenant)

    # --- work ---

    @rule(worker=WORKER, tenant=TENANT, uses=st.booleans())
    def bind(self, worker, tenant, uses):
        self.bind_in(self.workers[worker], tenant, uses)

    @rule(worker=WORKER, tenants=st.lists(TENANT, min_size=1, max_size=3))
    def serve(self, worker, tenants):
        self.serve_in(self.workers[worker], tenants)

    @precondition(lambda self: any(worker.blocks for worker in self.workers))
    @rule(worker=WORKER)
    def use(self, worker):
        self.use_bound(self.bound(worker))

    @rule(worker=WORKER)
    def use_unbound(self, worker):
        if not self.workers[worker].blocks:
            with pytest.raises(TenantContextMissing):
                self.workers[worker].do(look)

    def left(self, me, tenant):
        if all(bound != tenant for _, bound, _ in me.blocks):
            me.opened.pop(tenant, None)
        if not me.blocks:
            me.opened.clear()

    def use_bound(self, me):
        place, backend = me.do(look)
        _, tenant, pinned = me.blocks[-1]
        assert place == pinned
        assert me.opened.setdefault(tenant, backend) is backend

    # --- what outlives its unit, or runs in another thread within it ---

    @precondition(lambda self: any(worker.kept for worker in self.workers))
    @rule(worker=WORKER)
    def use_in_copy(self, worker):
        keeping = [each for each in self.workers if each.kept]
        me = keeping[worker % len(keeping)]
        kept, owner, unit, tenant, pinned = me.kept
        lives = unit is not None and owner.unit is unit
        try:
            place, _ = me.do(lambda: kept.run(look))
        except TenantDeleted:
            assert not lives
            assert self.places[tenant] is None or me.denied
            me.denied = True
        else:
            # A copy that was used after its unit had ended has a unit of its own from then on, which pins in turn.
            assert place == (pinned if lives else me.renewed or self.places[tenant])
            me.renewed = None if lives else place

    # --- what must hold ---

    def looked(self):
        self.only_what_is_in_use_is_beyond_the_limit()

    @invariant()
    def only_what_is_in_use_is_beyond_the_limit(self):
        if not hasattr(self, "workers"):
            return
        units.release_abandoned()
        used = {each.backend for unit in self.living() for each in [*unit.uses]}
        for me in self.workers:
            assert all(backend.connected for backend in me.opened.values()), "closed while its unit lives"
            assert {*me.opened.values()} <= used
        eventually(lambda: self.settled(used) or collect_garbage())  # a unit may be in a circle of references

    def settled(self, used):
        units.release_abandoned()
        return self.unused(used) <= max(0, LIMIT - len(used)) and not self.replaced(used)

    def unused(self, used):
        return len([each for each in [*Connected.everyone] if each.connected and each not in used])

    def replaced(self, used):
        resting = [each for each in [*Connected.everyone] if each.connected and each not in used]
        return [each for each in resting if each.location not in self.places.values()]

    def teardown(self):
        for me in self.workers:
            me.opened.clear()
            me.kept = me.unit = None
            while me.blocks:
                block, _, _ = me.blocks.pop()
                me.do(lambda block=block: block.__exit__(None, None, None))
            me.end()
        units.release_abandoned()
        eventually(lambda: not [each for each in [*Connected.everyone] if each.connected])
        eventually(lambda: caches._open.with_sockets.count == 0)


def stop_following(tenants):
    """End the thread that follows the store: changes come in turn here, and Hypothesis bears no use of ``random``."""
    reflector = tenants.runtime.reflector
    reflector._stopping.set()
    tenants.delete("nobody.test")  # it wakes up
    reflector._thread.join(60)
    assert not reflector._thread.is_alive()


def test_every_cache_is_its_own_tenants_at_its_own_revision(limited):  # noqa: F811
    OpenCaches.project = limited(LIMIT, CONNECTED)
    stop_following(OpenCaches.project.tenants)
    run_state_machine_as_test(
        OpenCaches,
        settings=settings(
            max_examples=SCHEDULES,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )
