"""Fixtures: a fresh runtime over an empty in-memory store, and tenants in it."""

import pytest
from django.core.cache.backends import locmem
from django.db import connections

from tenant_router import context, runtime
from tenant_router.cache.memory import memories
from tenant_router.conf import conf
from tests.tenants import Tenants


def pytest_collection_finish():
    """Let the first test find what every other one finds: no runtime. Modules were imported with one, as in servers."""
    _discard()


@pytest.fixture
def fresh_runtime():
    """A function that makes the process's runtime anew, from the settings as they are then."""
    made = []

    def make():
        _discard()
        made.append(runtime.install())
        return made[-1]

    yield make
    _discard()
    assert context.stack.get() == (), "the test left a tenant bound"


@pytest.fixture
def router(fresh_runtime):
    """A runtime whose (in-memory) store was initialised and holds no tenant."""
    made = fresh_runtime()
    Tenants(made, None).delete("nobody.test")
    made.synchronise()
    return made


@pytest.fixture
def tenants(router, tmp_path):
    """Writes tenants into the store of ``router``."""
    return Tenants(router, tmp_path)


@pytest.fixture
def two(tenants):
    """Two migrated tenants, ``a.test`` and ``b.test``."""
    tenants.put("a.test", migrate=True)
    tenants.put("b.test", migrate=True)
    return tenants


def _discard():
    conf.forget()
    if runtime.is_installed():
        connections.close_all()
        runtime.get().uninstall()
    # What is cached in memory ends with its process, and a runtime is a process to the tests. LocMemCache keeps
    # entries per LOCATION in dictionaries of its module, which living backends share: they are emptied, not replaced.
    for kept in (*locmem._caches.values(), *locmem._expire_info.values()):
        kept.clear()
    for memory in (*memories._recent.values(), *memories._held.values()):  # where ours keeps tenants' entries
        memory.clear()
