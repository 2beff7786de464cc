"""Test indices of Elasticsearch: creating, emptying and removing them, and the gate before every other index."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from elasticsearch import ApiError, Elasticsearch

from tenant_router.exceptions import ConfigurationError
from tenant_router.orm_backends.base import BaseTestDatabases, TestGate, no_test_database
from tenant_router.orm_backends.es_orm import dsl
from tenant_router.orm_backends.es_orm import settings as es_settings
from tenant_router.orm_backends.es_orm.clients import ORM_ID, TenantClients
from tenant_router.orm_backends.es_orm.confinement import Confinement
from tenant_router.orm_backends.es_orm.shared_client import SharedClient
from tenant_router.orm_backends.es_orm.validation import host_faults

# The first part of a path that begins with "_", of requests by POST, PUT or DELETE that change no document or index.
READS = """
_analyze _async_search _cache _count _eql _explain _field_caps _flush _knn_search _mget _msearch _mtermvectors _mvt _pit
_rank_eval _refresh _search _search_shards _tasks _terms_enum _termvectors _validate
"""
_READS = frozenset(READS.split())
_AT_ONCE = 20  # indices whose names fit into the first line of a request
_PAGE: dict[str, Any] = {"size": 1000, "source": False, "sort": ["_doc"], "track_total_hits": False}


class _Schema(NamedTuple):
    """The names of what there is under one prefix, by kind."""

    indices: frozenset[str]
    streams: frozenset[str]
    templates: frozenset[str]
    component_templates: frozenset[str]
    legacy_templates: frozenset[str]

    def beyond(self, other: _Schema) -> _Schema:
        """What there is here and not in ``other``."""
        return _Schema(*(mine - theirs for mine, theirs in zip(self, other, strict=True)))


class _OnlyThese(dict[str, Any]):
    """The clients of all aliases in the settings; an application has no others in ``elasticsearch.dsl``."""

    def get(self, alias: str, default: Any = None) -> Any:
        """The client of ``alias``. Raises ``RealDatabase``."""
        if alias not in self:
            raise no_test_database(ORM_ID, alias)
        return self[alias]


class EsTestIndices(BaseTestDatabases):
    """What test tenants and reserved aliases have on the clusters of the settings; a "database" is a prefix."""

    MAX_NAME = 100

    def __init__(self, manager: Any) -> None:
        super().__init__(manager)
        self._schemas: dict[tuple[str, str], _Schema] = {}

    def real_name(self, alias: str) -> str:
        """The ``INDEX_PREFIX`` in the settings of ``alias``, without the tenant."""
        return str(self.manager.settings_of(alias).get("INDEX_PREFIX", "")).replace("{tenant}", "")

    def begin(self, gate: TestGate, reserved: Mapping[str, str]) -> None:
        """Ask ``gate`` before each request, of whichever client; confine the central ones to a prefix, too."""

        def ask(prefix: str, method: str, target: str) -> None:
            gate.admit(_name(prefix))
            if _writes(method, target):
                gate.wrote(_name(prefix))

        self.manager.pool.gate = ask
        dsl.uninstall()
        manager = self.manager
        dsl.install("connections", _OnlyThese({**manager.clients, **manager.central}), {})
        dsl.install("async_connections", _OnlyThese({**manager.async_clients, **manager.async_central}), {})
        for alias, name in reserved.items():
            scope = self.manager.central_scopes[alias]
            scope.prefix, scope.confinement = prefix_of(name), Confinement("", alias, prefix_of(name))

    def end(self) -> None:
        """Undo :meth:`begin`."""
        self.manager.pool.gate = None
        dsl.uninstall()
        self.manager.install()
        for scope in self.manager.central_scopes.values():
            scope.prefix, scope.confinement = "", None

    def prepare(self, tenant_id: str, names: Mapping[str, str]) -> dict[str, TenantClients]:
        """The clients of a test tenant by alias."""
        return {
            alias: TenantClients(tenant_id, alias, prefix_of(name), self._shared(alias))
            for alias, name in names.items()
        }

    def exists(self, alias: str, name: str) -> bool:
        """Whether there is an index, a data stream or a template with the prefix. Raises ``ConfigurationError``."""
        if host_faults(self.manager.settings_of(alias)):
            raise ConfigurationError("its settings have no HOSTS, or wrong ones, where test indices could be")
        with self._shared(alias).sync() as client:
            return any(_schema(client, prefix_of(name)))

    def created(self, alias: str, name: str) -> None:
        """Remember what migrations have made."""
        with self._shared(alias).sync() as client:
            self._schemas[alias, name] = _schema(client, prefix_of(name))

    def flush(self, alias: str, name: str) -> bool:
        """Delete the documents of what migrations have made, and whatever else there is."""
        schema = self._schemas[alias, name]
        with self._shared(alias).sync() as client:
            found = _schema(client, prefix_of(name))
            _delete(client, found.beyond(schema))
            if not any(schema.beyond(found)) and _delete_documents(client, schema, prefix_of(name)):
                return True
            _delete(client, _schema(client, prefix_of(name)))
        return False

    def remove(self, alias: str, name: str) -> None:
        """Delete all indices, data streams and templates with the prefix."""
        with self._shared(alias).sync() as client:
            _delete(client, _schema(client, prefix_of(name)))

    def _shared(self, alias: str) -> SharedClient:
        settings = self.manager.settings_of(alias)
        if host_faults(settings):  # each record has its own: nothing is created, and nothing admitted
            settings = {"HOSTS": ()}
        found: SharedClient = self.manager.pool.get(es_settings.central(settings))
        return found


def prefix_of(name: str) -> str:
    """The index prefix of a test database: what a tenant of that name would have by default."""
    return str(es_settings.prefix_of({}, {}, name))


def _name(prefix: str) -> str:
    """The name whose :func:`prefix_of` this is; of a real prefix, something that no test database is called."""
    separator = prefix_of("")
    return prefix.removesuffix(separator) if prefix.endswith(separator) else f"{prefix} (a prefix)"


def _writes(method: str, target: str) -> bool:
    parts = target.partition("?")[0].split("/")
    verb = next((part for part in parts if part.startswith("_")), "")
    return method not in ("GET", "HEAD") and verb not in _READS


def _schema(client: Elasticsearch, prefix: str) -> _Schema:
    pattern, found = f"{prefix}*", client.indices.resolve_index(name=f"{prefix}*", expand_wildcards="all")
    quiet = client.options(ignore_status=404)  # which says that there is none
    legacy = quiet.indices.get_template(name=pattern)
    return _Schema(
        # Those within a data stream come and go with it.
        frozenset(index["name"] for index in found["indices"] if "data_stream" not in index),
        _names(found, "data_streams"),
        _names(quiet.indices.get_index_template(name=pattern), "index_templates"),
        _names(quiet.cluster.get_component_template(name=pattern), "component_templates"),
        frozenset(legacy if legacy.meta.status == 200 else ()),
    )


def _names(answer: Any, kind: str) -> frozenset[str]:
    return frozenset(each["name"] for each in answer.get(kind, ()))


def _delete(client: Elasticsearch, what: _Schema) -> None:
    """Delete these by their names (whoever forbids wildcards there does so to be asked)."""
    missing_ok = client.options(ignore_status=404)
    for name in sorted(what.streams):
        missing_ok.indices.delete_data_stream(name=name, expand_wildcards="all")
    indices = sorted(what.indices)
    for start in range(0, len(indices), _AT_ONCE):
        missing_ok.indices.delete(index=indices[start : start + _AT_ONCE])
    for name in sorted(what.templates):
        missing_ok.indices.delete_index_template(name=name)
    for name in sorted(what.component_templates):  # an index template may be composed of them
        missing_ok.cluster.delete_component_template(name=name)
    for name in sorted(what.legacy_templates):
        missing_ok.indices.delete_template(name=name)


def _delete_documents(client: Elasticsearch, schema: _Schema, prefix: str) -> bool:
    """Whether all documents could be deleted; a test may have closed an index, or made it read-only."""
    if not (schema.indices or schema.streams):
        return True
    everywhere = f"{prefix}*"
    try:
        client.indices.refresh(index=everywhere, expand_wildcards="all")
        # Not by _delete_by_query, which is a module that a small cluster may lack.
        while hits := client.search(index=everywhere, expand_wildcards="all", **_PAGE)["hits"]["hits"]:
            if client.bulk(operations=[{"delete": _place(hit)} for hit in hits], refresh=True)["errors"]:
                return False
    except ApiError:
        return False
    return True


def _place(hit: Mapping[str, Any]) -> dict[str, Any]:
    found = {"_index": hit["_index"], "_id": hit["_id"]}
    return {**found, "routing": hit["_routing"]} if "_routing" in hit else found
