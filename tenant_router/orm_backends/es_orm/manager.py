"""``EsOrmManager``: tenants' indices for Elasticsearch's own client."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tenant_router.exceptions import ConfigurationError, RecordInvalid
from tenant_router.orm_backends import host_names
from tenant_router.orm_backends.base import BaseOrmManager
from tenant_router.orm_backends.es_orm import dsl, dsl_guards
from tenant_router.orm_backends.es_orm import settings as es_settings
from tenant_router.orm_backends.es_orm.client_pool import ClientPool
from tenant_router.orm_backends.es_orm.clients import ORM_ID, Scope, TenantClients, make_async_client, make_client
from tenant_router.orm_backends.es_orm.creation import EsTestIndices
from tenant_router.orm_backends.es_orm.migration_asst import EsMigrationAsst
from tenant_router.orm_backends.es_orm.settings import Cluster
from tenant_router.orm_backends.es_orm.shared_client import SharedClient
from tenant_router.orm_backends.es_orm.validation import host_faults


class EsOrmManager(BaseOrmManager):
    """Gives each tenant clients that see its own indices only.

    Options: ``RESERVED_CONN_ALIASES``, ``MIGRATION_ASST``, ``SCHEMA`` (dotted path of what the
    migration assistant creates), ``MAX_OPEN_CLIENTS`` (clusters that a process has connections to,
    100), ``ALLOW_OPTIONS`` (options that a record may have besides the allow-listed),
    ``ALLOW_SHARED_DATABASES`` (two tenants may have one prefix on one cluster).
    """

    OPTION_NAMES = (
        *BaseOrmManager.OPTION_NAMES,
        "SCHEMA",
        "MAX_OPEN_CLIENTS",
        "ALLOW_OPTIONS",
        "ALLOW_SHARED_DATABASES",
    )
    default_migration_asst = EsMigrationAsst
    location_noun, nested_locations = "indices", True
    test_databases = EsTestIndices

    def __init__(self, orm_id: str, settings: Mapping[str, Mapping[str, Any]], options: Mapping[str, Any]) -> None:
        super().__init__(orm_id, settings, options)
        if orm_id != ORM_ID:
            raise ConfigurationError(f"this manager is for the ORM id {ORM_ID!r}, not {orm_id!r}")
        self._clusters = host_names.joined(map(es_settings.places, settings.values()))
        # Where central documents are, and tenants whose records name no HOSTS.
        shared = {
            alias: own
            for alias, own in settings.items()
            if alias in self.reserved_aliases or own.get("INDEX_PREFIX") != ""
        }
        self._shared = {node: alias for alias, own in shared.items() for node in self._nodes(own)}
        self.pool = ClientPool(int(options.get("MAX_OPEN_CLIENTS", 100)))
        self.central_scopes = {alias: self._central(alias, settings[alias]) for alias in self.reserved_aliases}
        self.clients = {alias: make_client(alias, None) for alias in self.templates}
        self.async_clients = {alias: make_async_client(alias, None) for alias in self.templates}
        self.central = {alias: make_client(alias, scope) for alias, scope in self.central_scopes.items()}
        self.async_central = {alias: make_async_client(alias, scope) for alias, scope in self.central_scopes.items()}

    def install(self) -> None:
        """Have ``elasticsearch.dsl`` find the bound tenant's clients."""
        dsl.install("connections", self.clients, self.central)
        dsl.install("async_connections", self.async_clients, self.async_central)
        dsl_guards.install(self.templates)

    def uninstall(self) -> None:
        """Undo :meth:`install` and close what no request uses."""
        dsl.uninstall()
        dsl_guards.uninstall()
        self.pool.close()

    def prepare(
        self, tenant_id: str, config: Mapping[str, Mapping[str, Any]], previous: Any
    ) -> dict[str, TenantClients]:
        """Build the clients of one tenant by alias; nothing is opened."""
        clients, faults = dict[str, TenantClients](), list[tuple[str, str]]()
        for alias, template in self.templates.items():
            try:
                own, widen = config.get(alias, {}), self.options.get("ALLOW_OPTIONS", ())
                cluster, prefix = es_settings.build(template, own, tenant_id, widen)
            except RecordInvalid as error:
                faults += [(f"orm_config.{self.orm_id}.{alias}.{key}", what) for key, what in error.problems]
                continue
            shared = None if prefix else self._shared_alias(cluster)
            if shared is not None:
                where = f"orm_config.{self.orm_id}.{alias}.INDEX_PREFIX"
                faults.append((where, f"is empty on the cluster of alias {shared!r}: give one, or other HOSTS"))
                continue
            clients[alias] = self._tenant_clients(tenant_id, alias, prefix, self.pool.get(cluster), previous)
        if faults:
            raise RecordInvalid(faults)
        return clients

    def retire(self, previous: Any, current: Any) -> None:
        """Nothing to do: a client is closed when the last context that leads to it is gone."""

    def check_health(self, alias: str) -> None:
        """Ask the bound tenant's cluster."""
        from tenant_router.orm_backends.es_orm import get_client

        get_client(alias).info()

    def reset_after_fork(self) -> None:
        """The parent's connections are not ours to use."""
        self.pool.reset_after_fork()

    def locations(
        self, tenant_id: str, config: Mapping[str, Mapping[str, Any]]
    ) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Each template alias with the prefix that ``config`` gives the tenant, on each node of its cluster."""
        for alias, template in self.templates.items():
            own = config.get(alias, {})
            prefix = es_settings.prefix_of(template, own, tenant_id)
            for node in self._nodes({**template, **own}) if isinstance(prefix, str) else ():
                yield alias, (prefix, node)

    def _shared_alias(self, cluster: Cluster) -> str | None:
        """The alias of the settings that leads to ``cluster``, too, if one does: no tenant may have all of it."""
        if self.options.get("ALLOW_SHARED_DATABASES"):
            return None
        return next((self._shared[node] for node in self._of_one(cluster.addresses) if node in self._shared), None)

    def _nodes(self, settings: Mapping[str, Any]) -> tuple[str, ...]:
        return self._of_one(es_settings.places(settings))

    def _of_one(self, nodes: tuple[str, ...]) -> tuple[str, ...]:
        """With those that the settings say are of the same cluster."""
        return tuple(host_names.all_hosts(nodes, self._clusters))

    def _tenant_clients(
        self, tenant_id: str, alias: str, prefix: str, shared: SharedClient, previous: Any
    ) -> TenantClients:
        old: TenantClients | None = previous.get(alias) if previous else None
        if old is not None and old.scope.shared is shared and old.scope.prefix == prefix:
            return old
        return TenantClients(tenant_id, alias, prefix, shared)

    def _central(self, alias: str, settings: Mapping[str, Any]) -> Scope:
        if host_faults(settings):
            raise ConfigurationError(f"{self.orm_id}: HOSTS of the reserved alias {alias!r} are missing or wrong")
        shared = self.pool.get(es_settings.central(settings))
        shared.acquire()
        return Scope.central(alias, shared)
