"""``tenant_context_manager``: what this process knows of its tenants."""

import threading

import pytest
from django.db import connections

from tenant_router.exceptions import (
    TenantContextMissing,
    TenantDeleted,
    TenantMisconfigured,
    TenantNotFound,
    TenantNotLoaded,
    TenantProvisioning,
    TenantSuspended,
)
from tenant_router.managers import tenant_context_manager
from tenant_router.managers.registry import TenantContextManager


@pytest.fixture
def known(tenants):
    """One tenant in each state, one whose record is bad."""
    for tenant_id, state in {"active": "A", "new": "P", "asleep": "S", "going": "D", "gone": "A"}.items():
        tenants.put(tenant_id, state=state)
    tenants.put("bad", {"orm_config": {"django_orm": {"default": {}}}})
    revision = tenants.delete("gone")
    tenants.arrived("gone", revision)
    tenants.arrived("bad")
    return tenants


def test_get_by_id_of_an_active_tenant(known):
    context = tenant_context_manager.get_by_id("active")
    assert context.id == "active"
    assert context.revision == 2
    assert tenant_context_manager.get_by_id("active") is context


@pytest.mark.parametrize(
    ("tenant_id", "error", "message"),
    [
        ("new", TenantProvisioning, "tenant 'new' is being provisioned"),
        ("asleep", TenantSuspended, "tenant 'asleep' is suspended"),
        ("going", TenantDeleted, "tenant 'going' is being deleted"),
        ("gone", TenantDeleted, "tenant 'gone' was deleted"),
        ("bad", TenantMisconfigured, "NAME: is missing"),
        ("nobody", TenantNotFound, "no tenant 'nobody' is known"),
        ("Not An Id", TenantNotFound, "no tenant 'Not An Id' is known"),
        ("", TenantNotFound, "no tenant '' is known"),
    ],
)
def test_get_by_id_raises_the_precise_error(known, tenant_id, error, message):
    with pytest.raises(error, match=message) as caught:
        tenant_context_manager.get_by_id(tenant_id)
    assert type(caught.value) is error
    assert caught.value.tenant_id == tenant_id


def test_a_very_long_id_is_cut_in_the_message(known):
    with pytest.raises(TenantNotFound) as caught:
        tenant_context_manager.get_by_id("x" * 5000)
    assert len(str(caught.value)) < 400


def test_contains_is_true_for_all_but_deleted_and_unknown(known):
    contained = {t: tenant_context_manager.contains(t) for t in ("active", "new", "asleep", "going", "bad")}
    assert all(contained.values()), contained
    assert not tenant_context_manager.contains("gone")
    assert not tenant_context_manager.contains("nobody")


def test_get_tenant_ids_is_all_but_deleted(known):
    assert sorted(tenant_context_manager.get_tenant_ids()) == ["active", "asleep", "bad", "going", "new"]


def test_get_in_any_state_is_for_operators(known):
    for tenant_id in ("active", "new", "asleep", "going"):
        assert tenant_context_manager.get_in_any_state(tenant_id).id == tenant_id
    with pytest.raises(TenantDeleted):
        tenant_context_manager.get_in_any_state("gone")


def test_all_gives_the_active_ones_and_goes_on_past_a_bad_record(known):
    # a bad record affects its tenant only: a fan-out must reach the tenants after it
    known.put("zz-after-the-bad-one")
    known.arrived("zz-after-the-bad-one")
    assert [context.id for context in tenant_context_manager.all()] == ["active", "zz-after-the-bad-one"]


def test_all_goes_on_past_a_tenant_that_is_deleted_meanwhile(known):
    for number in range(3):
        known.put(f"more-{number}")
    known.arrived("more-2")
    found = tenant_context_manager.all()
    assert next(found).id == "active"
    known.arrived("more-1", known.delete("more-1"))
    assert [context.id for context in found] == ["more-0", "more-2"]


@pytest.mark.parametrize("alias", ["active_default", "asleep_default", "bad_default"])
def test_owner_of_an_alias(known, alias):
    assert tenant_context_manager.owner_of(alias) == alias.removesuffix("_default")


@pytest.mark.parametrize(
    "alias",
    ["default", "_default", "active", "active_", "active_other", "activ_default", "gone_default", "", "x" * 999],
)
def test_an_alias_of_nobody(known, alias):
    assert tenant_context_manager.owner_of(alias) is None
    with pytest.raises(TenantNotFound):
        tenant_context_manager.get_by_alias(alias)


def test_get_by_alias(known):
    assert tenant_context_manager.get_by_alias("active_default").id == "active"
    with pytest.raises(TenantSuspended):
        tenant_context_manager.get_by_alias("asleep_default")


def test_ids_that_begin_alike_or_hold_separators_are_strangers(tenants):
    # defect (h): "acme" matched "acme_2", and aliases were taken apart by searching
    ids = ["t1", "t10", "acme", "acme_2", "a-b.com", "a.b-com", "x_default", "x", "default"]
    for tenant_id in ids:
        tenants.put(tenant_id)
    tenants.arrived("default")
    for tenant_id in ids:
        assert tenant_context_manager.get_by_alias(f"{tenant_id}_default").id == tenant_id
    tenants.arrived("acme", tenants.delete("acme"))
    assert tenant_context_manager.contains("acme_2")
    assert tenant_context_manager.owner_of("acme_default") is None


def test_a_bad_change_keeps_the_last_good_record_serving(known):
    good = tenant_context_manager.get_by_id("active")
    known.arrived("active", known.put("active", {"orm_config": {"django_orm": {"default": {"NAME": 5}}}}))
    assert tenant_context_manager.get_by_id("active") is good
    revision = known.put("active", known.record("other"))
    known.arrived("active", revision)
    assert tenant_context_manager.get_by_id("active").revision == revision


def test_no_io_after_synchronising(known, monkeypatch):
    def no_io(*args, **kwargs):
        raise AssertionError("the store was asked")

    known.arrived("bad")
    for name in ("head", "scan", "get_many"):
        monkeypatch.setattr(known.runtime.store, name, no_io)
    assert tenant_context_manager.contains("active")
    assert not tenant_context_manager.contains("nobody")
    assert tenant_context_manager.get_tenant_ids()
    assert tenant_context_manager.get_by_id("active")


def test_an_empty_registry_without_a_source_knows_nobody():
    registry = TenantContextManager()
    assert registry.get_tenant_ids() == []
    assert not registry.contains("a")
    with pytest.raises(TenantNotFound):
        registry.get_by_id("a")


def test_a_tenant_that_cannot_be_read_now_is_not_unknown(known, monkeypatch):
    from tenant_router.exceptions import StoreUnavailable

    def away(ids):
        raise StoreUnavailable("away")

    registry, pipeline = tenant_context_manager, known.runtime.pipeline
    registry.prepared.clear(), registry.serving.clear(), pipeline._held.clear()
    monkeypatch.setattr(known.runtime.store, "get_many", away)
    with pytest.raises(TenantNotLoaded, match="cannot be read now"):
        registry.get_by_id("active")


def test_the_first_use_in_many_threads_prepares_one_context(tenants):
    tenants.put("a")
    tenants.arrived("a")
    barrier, seen = threading.Barrier(16), []

    def use():
        barrier.wait(60)
        seen.append(tenant_context_manager.get_by_id("a"))

    threads = [threading.Thread(target=use) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 16
    assert len(set(map(id, seen))) == 1


def test_a_first_use_that_read_an_old_record_does_not_undo_a_newer_one(tenants):
    # given a tenant whose record was read, and changed before it could be prepared
    registry, pipeline, store = tenant_context_manager, tenants.runtime.pipeline, tenants.runtime.store
    pipeline.eager_max = 0
    old = tenants.put("a")
    tenants.arrived("a", old)
    reads = []

    def slow_fetch(ids):
        found = store.get_many(ids)
        if not reads:
            reads.append(1)
            tenants.arrived("a", tenants.put("a", tenants.record("newer")))
        return found

    # when it is prepared at its first use
    context = pipeline.load("a", slow_fetch)
    # then the newer record is what is served
    assert pipeline.revision_of("a") == old + 1
    assert registry.get_by_id("a").revision == old + 1
    assert context.revision == old + 1


def test_the_ids_of_tenants_are_no_aliases_of_the_handler(known):
    assert set(connections) == {"default", "central"}
    with pytest.raises(TenantContextMissing):
        connections["default"].ensure_connection()
