"""A worker whose reflector is behind the publisher of a task: it asks the store rather than run on what it has."""

import time

import pytest

from tenant_router.celery import binding
from tenant_router.exceptions import TenantDeleted, TenantNotLoaded
from tenant_router.tenant_context import DeniedContext
from tests.integration.test_reflector import paused
from tests.tenants import eventually


@pytest.fixture
def behind(tenants, monkeypatch):
    """``tenants``, of whose changes this process hears nothing."""
    monkeypatch.setattr(binding, "CATCH_UP", 0.05)
    tenants.arrived("a.test", tenants.put("a.test"))
    eventually(lambda: tenants.runtime.reflector.ready)
    with paused(tenants.runtime):
        yield tenants


def resolve(revision):
    return binding.find("a.test", revision, binding.wait_for)


def test_the_revision_of_the_publisher_is_bound(behind):
    moved = behind.put("a.test", behind.record("moved"))
    found = resolve(moved)
    assert found.revision == moved
    assert found.parts["django_orm"]["default"].settings["NAME"].endswith("moved.db")


def test_a_tenant_that_was_deleted_meanwhile_is_not_served(behind):
    moved = behind.put("a.test", behind.record("moved"))
    behind.delete("a.test")
    found = resolve(moved)
    assert isinstance(found, DeniedContext)
    assert isinstance(found.error, TenantNotLoaded)


def test_a_revision_of_another_history_does_not_come(behind):
    latest = behind.put("a.test", behind.record("restored"))
    assert resolve(latest + 1000).revision == latest


def test_a_tenant_that_was_created_again_runs(tenants):
    """Its deletion has arrived here, and its new life has not: the message knows of it."""
    tenants.arrived("a.test", tenants.delete("a.test") if tenants.put("a.test") else 0)
    eventually(lambda: tenants.runtime.reflector.ready)
    with paused(tenants.runtime):
        again = tenants.put("a.test", tenants.record("again"))
        found = resolve(again)
    assert not isinstance(found, DeniedContext), found.error
    assert found.revision == again


def test_a_message_of_the_first_life_stays_refused(tenants):
    first = tenants.put("a.test")
    tenants.arrived("a.test", tenants.delete("a.test"))
    began = time.monotonic()
    assert isinstance(resolve(first).error, TenantDeleted)
    assert time.monotonic() - began < binding.CATCH_UP
