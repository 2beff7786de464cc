"""Fixtures: tenants on a real Elasticsearch node."""

import copy
import os
import uuid

import pytest
from django.conf import settings
from django.db import connections

from tenant_router import runtime
from tests.services import require
from tests.tenants import Tenants


class ElasticsearchTenants(Tenants):
    """Tenants with a database and with indices; ids are new in each test, because the node is shared."""

    def __init__(self, runtime, directory, url):
        super().__init__(runtime, directory)
        self.url, self._tag = url, uuid.uuid4().hex[:8]

    def id(self, name):
        """A tenant id that no other test has."""
        return f"{name}-{self._tag}"

    def record(self, name, es=None, **extra):
        made = super().record(name, **extra)
        made["orm_config"]["es_orm"] = {"default": es or {}}
        return made

    def put(self, tenant_id, record=None, **kwargs):
        """Create or change a tenant and wait until this process has it."""
        revision = super().put(tenant_id, record, **kwargs)
        self.arrived(tenant_id, revision)
        return revision

    @property
    def manager(self):
        return self.runtime.orms["es_orm"]

    def plain(self):
        """A client that is nobody's."""
        from elasticsearch import Elasticsearch

        return Elasticsearch(self.url)

    def clean(self):
        """Remove what this test's tenants left on the node."""
        with self.plain() as client:
            pattern = f"*{self._tag}*"
            client.indices.delete(index=list(client.indices.get(index=pattern, expand_wildcards="all")) or "none-such")


def url():
    """Where the node is; skips the test where there is none."""
    pytest.importorskip("elasticsearch", reason="the client of Elasticsearch is not installed")
    found = os.environ.get("ELASTICSEARCH_URL", "")
    require(found, "ELASTICSEARCH_URL is not set: there is no Elasticsearch node")
    return found


@pytest.fixture
def es_project(fresh_runtime, monkeypatch, tmp_path):
    """A function that makes a runtime with ``es_orm`` whose settings are ``es``; returns its ``ElasticsearchTenants``."""
    made = []

    def make(es=None, reserved=(), hosts=None, **options):
        if runtime.is_installed():
            connections.close_all()
            runtime.get().uninstall()
        hosts = [url()] if hosts is None else hosts
        orms = copy.deepcopy(settings.TENANT_ROUTER_ORM_SETTINGS)
        orms["es_orm"] = {"SETTINGS_KEY": "ES_SETTINGS", "OPTIONS": {"RESERVED_CONN_ALIASES": set(reserved), **options}}
        monkeypatch.setattr(settings, "ES_SETTINGS", es or {"default": {"HOSTS": hosts}}, raising=False)
        monkeypatch.setattr(settings, "TENANT_ROUTER_ORM_SETTINGS", orms)
        tenants = ElasticsearchTenants(fresh_runtime(), tmp_path, hosts[0])
        tenants.delete("nobody.test")
        tenants.runtime.synchronise()
        made.append(tenants)
        return tenants

    yield make
    if os.environ.get("ELASTICSEARCH_URL"):
        for tenants in made:
            tenants.clean()


@pytest.fixture
def es(es_project):
    """Two tenants on the node, whose ids begin alike: ``es.a`` and ``es.b``."""
    tenants = es_project()
    tenants.a, tenants.b = tenants.id("t1"), tenants.id("t10")
    tenants.put(tenants.a)
    tenants.put(tenants.b)
    return tenants
