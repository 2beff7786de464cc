"""Nothing on the request path depends on the number of tenants."""

import pytest
from django.core.cache import cache, caches
from django.db import connections
from django.test import Client

from tenant_router.config_store import codec
from tenant_router.config_store.backends.memory import MemoryStore
from tenant_router.config_store.base import Op
from tenant_router.context_decorators import tenant_context_bind
from tenant_router.managers import tenant_context_manager
from tenant_router.orm_backends.django_orm import connections as handler
from tenant_router.reactive import boot
from tests.fixtures_orm import SQLITE, create_tables

STORE = {
    "BACKEND": "tests.integration.test_scale.CountingStore",
    "LOCATION": {},
    "OPTIONS": {"SERIALIZER": {"CLASS": "tenant_router.config_store.serializers.json.JSONSerializer"}},
}


class CountingStore(MemoryStore):
    """Counts what is asked of it, apart from the reflector's waiting for news."""

    calls = {}

    def _count(self, name, number=1):
        self.calls[name] = self.calls.get(name, 0) + number

    def head(self):
        self._count("head")
        return super().head()

    def scan(self, cursor, limit):
        self._count("scan")
        return super().scan(cursor, limit)

    def get_many(self, tenant_ids):
        self._count("records", len(tenant_ids))
        return super().get_many(tenant_ids)


@pytest.fixture
def many(project):
    """A function that makes a project with so many tenants, of which ``a.test`` has tables."""

    def make(count):
        tenants = project({"default": {**SQLITE}, "central": {**SQLITE, "NAME": ":memory:"}}, {"central"}, store=STORE)
        names = [f"many-{number}.test" for number in range(count)]
        ops = [Op(name, "A", codec.encode(name, tenants.record(name), tenants.runtime.serializer)) for name in names]
        for start in range(0, count, 5_000):
            tenants.commit(*ops[start : start + 5_000])
        tenants.put("a.test")
        tenants.runtime.reflector.stop()
        # another process boots over the same content
        from tenant_router import runtime

        content = tenants.runtime.store._content
        connections.close_all()
        tenants.runtime.uninstall()
        tenants.runtime = runtime.install()
        tenants.runtime.store._content = content
        CountingStore.calls.clear()
        tenants.runtime.serve("web")
        return tenants

    return make


class Touched:
    """What one request touches."""

    def __init__(self, monkeypatch):
        self.aliases, self.wrappers = [], []
        databases, create = type(connections.settings), handler.TenantConnectionHandler._create

        def iterate(settings):
            for alias in settings.static:
                self.aliases.append(alias)
                yield alias

        def counted(connections, mine, database):
            self.wrappers.append(database.alias)
            return create(connections, mine, database)

        monkeypatch.setattr(databases, "__iter__", iterate)
        monkeypatch.setattr(handler.TenantConnectionHandler, "_create", counted)


def one_request(tenants, monkeypatch):
    """One request that reads and writes, after a first one that has loaded its tenant; what it touches."""
    create_tables("a.test")
    client = Client(headers={"host": "a.test"})
    assert client.get("/notes/").status_code == 200
    connections.close_all()
    with tenant_context_bind("a.test"):
        pass
    CountingStore.calls.clear()
    with monkeypatch.context() as patch:
        touched = Touched(patch)
        assert client.post("/notes/", {"text": "x"}, content_type="application/json").json() == {"notes": ["x"]}
        assert client.get("/cache/?set=1").json() == {"value": "1"}
        opened = [connection.alias for connection in connections.all(initialized_only=True)]
    calls = CountingStore.calls.copy()  # at once: the reflector's thread counts meanwhile
    calls.pop("head", None)  # idle comparisons
    return {"aliases": touched.aliases, "wrappers": touched.wrappers, "opened": opened, "store": calls}


def test_a_request_touches_the_same_with_ten_and_with_ten_thousand_tenants(many, monkeypatch):
    few = one_request(many(10), monkeypatch)
    (tmp := many(10_000)).directory.joinpath("a.test.db").unlink(missing_ok=True)
    assert tenant_context_manager.get_tenant_ids().__len__() == 10_001
    lots = one_request(tmp, monkeypatch)
    assert few == lots
    assert lots["store"] == {}
    assert set(lots["wrappers"]) <= {"a.test_default"}
    assert len(lots["aliases"]) <= 2 * len(connections.settings) * 2


def test_booting_with_ten_thousand_tenants_fetches_a_few_records(many):
    many(10_000)
    assert CountingStore.calls["records"] == boot.SAMPLE
    assert CountingStore.calls["scan"] <= 12
    assert len(tenant_context_manager.index) == 10_002
    assert tenant_context_manager.prepared == {}


def test_a_tenant_is_fetched_once_at_its_first_use(many):
    many(10_000)
    for _ in range(3):
        with tenant_context_bind("many-7.test"), tenant_context_bind("many-7777.test"):
            pass
    assert CountingStore.calls["records"] == boot.SAMPLE + 2
    assert tenant_context_manager.prepared.keys() == {"many-7.test", "many-7777.test"}


def test_booting_with_few_tenants_reads_all_records_and_prepares_none(many):
    many(20)
    assert CountingStore.calls["records"] == 21
    assert tenant_context_manager.prepared == {}
    with tenant_context_bind("many-3.test"):
        pass
    assert CountingStore.calls["records"] == 21


def test_an_unknown_host_touches_no_connection(many, monkeypatch):
    many(10)
    touched = Touched(monkeypatch)
    assert Client(headers={"host": "nobody.example"}).get("/notes/").status_code == 404
    assert touched.wrappers == []


def test_caches_enumerate_the_static_aliases_only(many):
    many(10_000)
    assert set(caches) == {"default", "central"}
    with tenant_context_bind("many-1.test"):
        cache.set("x", 1)
        assert set(caches) == {"default", "central"}
    with tenant_context_bind("many-2.test"):
        assert cache.get("x") is None
