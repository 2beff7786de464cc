"""Fixtures: tenants on a real Elasticsearch node; and the APIs of the installed client, read from its source."""

import ast
import copy
import inspect
import os
import re
import textwrap
import uuid
from contextlib import suppress
from dataclasses import dataclass, field

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

        return Elasticsearch(self.url, request_timeout=60)

    def clean(self):
        """Remove what this test's tenants left on the node."""
        with self.plain() as client:
            found = list(client.indices.get(index=f"*{self._tag}*", expand_wildcards="all"))
            if found:
                client.indices.delete(index=found, ignore_unavailable=True)


def url():
    """Where the node is; skips the test where there is none."""
    pytest.importorskip("elasticsearch", reason="the client of Elasticsearch is not installed")
    found = os.environ.get("ELASTICSEARCH_URL", "")
    require(found, "ELASTICSEARCH_URL is not set: there is no Elasticsearch node")
    return found


def _forget_connections():
    """The dsl keeps what an application has created for as long as its process lives."""
    from elasticsearch.dsl import connections

    with suppress(KeyError):
        connections.remove_connection("default")


@pytest.fixture
def es_project(fresh_runtime, monkeypatch, tmp_path):
    """A function that makes a runtime whose ``ES_SETTINGS`` are ``es``; returns its ``ElasticsearchTenants``."""
    made = []

    def make(es=None, reserved=(), hosts=None, **options):
        if runtime.is_installed():
            connections.close_all()
            runtime.get().uninstall()
        hosts = [url()] if hosts is None else hosts
        orms = copy.deepcopy(settings.TENANT_ROUTER_ORM_SETTINGS)
        orms["es_orm"] = {"SETTINGS_KEY": "ES_SETTINGS", "OPTIONS": {"RESERVED_CONN_ALIASES": set(reserved), **options}}
        es = es or {"default": {"HOSTS": hosts, "OPTIONS": {"request_timeout": 60}}}
        monkeypatch.setattr(settings, "ES_SETTINGS", es, raising=False)
        monkeypatch.setattr(settings, "TENANT_ROUTER_ORM_SETTINGS", orms)
        tenants = ElasticsearchTenants(fresh_runtime(), tmp_path, hosts[0])
        tenants.delete("nobody.test")
        tenants.runtime.synchronise()
        made.append(tenants)
        return tenants

    yield make
    _forget_connections()
    for tenants in made:
        if tenants.url == os.environ.get("ELASTICSEARCH_URL"):
            tenants.clean()


@pytest.fixture
def es(es_project):
    """Two tenants on the node, whose ids begin alike: ``es.a`` and ``es.b``."""
    tenants = es_project()
    tenants.a, tenants.b = tenants.id("t1"), tenants.id("t10")
    tenants.put(tenants.a)
    tenants.put(tenants.b)
    return tenants


# Path and keyword parameters that name an index, or something that is kept beside indices.
NAMES = {"index", "name", "alias", "target", "target_index", "new_index", "source", "dest"}


@dataclass
class Api:
    """One method of the client: ``indices.get_alias`` and the like."""

    name: str
    parameters: list[str] = field(default_factory=list)
    required: list[str] = field(default_factory=list)
    templates: set[str] = field(default_factory=set)
    query: set[str] = field(default_factory=set)

    @property
    def names(self):
        """Its parameters that are names."""
        return [name for name in self.parameters if name in NAMES]

    def of(self, client):
        """Its method of ``client``."""
        found = client
        for part in self.name.split("."):
            found = getattr(found, part)
        return found


def all_apis():
    """All of them, by name."""
    from elasticsearch import Elasticsearch
    from elasticsearch._sync.client._base import NamespacedClient

    client = Elasticsearch("http://127.0.0.1:1")
    spaces = {"": client, **{f"{n}.": s for n, s in vars(client).items() if isinstance(s, NamespacedClient)}}
    found = {}
    for space, owner in spaces.items():
        for name, method in inspect.getmembers(owner, inspect.ismethod):
            api = _read(space + name, method)
            if api is not None:
                found[api.name] = api
    client.close()
    return found


def _read(name, method):
    if name.rpartition(".")[2].startswith("_") or name.rpartition(".")[2] in ("close", "options", "perform_request"):
        return None
    source = textwrap.dedent(inspect.getsource(inspect.unwrap(method)))
    tree = ast.parse(source)
    if "perform_request" not in ast.unparse(tree):
        return None
    parameters = list(inspect.signature(inspect.unwrap(method)).parameters.values())[1:]
    api = Api(name, [p.name for p in parameters])
    api.required = re.findall(r"Empty value passed for parameters? '(\w+)'", source)
    api.required += [p.name for p in parameters if p.default is p.empty and p.name not in api.required]
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            target = ast.unparse(node.targets[0])
            if target == "__path":
                api.templates.add(_template(node.value))
            elif target.startswith("__query["):
                api.query.add(node.targets[0].slice.value)
    return api


def _template(path):
    if isinstance(path, ast.Constant):
        return path.value
    return "".join(p.value if isinstance(p, ast.Constant) else f"{{{p.value.slice.value}}}" for p in path.values)
