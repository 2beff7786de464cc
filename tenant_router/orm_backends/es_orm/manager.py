"""``EsOrmManager``: tenants' indices for Elasticsearch's own client."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tenant_router.exceptions import ConfigurationError, RecordInvalid
from tenant_router.orm_backends.base import BaseOrmManager
from tenant_router.orm_backends.es_orm import dsl
from tenant_router.orm_backends.es_orm import settings as es_settings
from tenant_router.orm_backends.es_orm.client_pool import ClientPool
from tenant_router.orm_backends.es_orm.clients import ORM_ID, Scope, TenantClients, make_async_client, make_client
from tenant_router.orm_backends.es_orm.creation import EsTestIndices
from tenant_router.orm_backends.es_orm.migration_asst import EsMigrationAsst
from tenant_router.orm_backends.es_orm.shared_client import SharedClient
from tenant_router.orm_backends.es_orm.validation import host_faults


class EsOrmManager(BaseOrmManager):
    """Gives each tenant clients that see its own indices only.

    Options: ``RESERVED_CONN_ALIASES``, ``MIGRATION_ASST``, ``SCHEMA`` (dotted path of what the
    migration assistant creates), ``MAX_OPEN_CLIENTS`` (clusters that a process has connections to,
    100), ``ALLOW_SHARED_DATABASES`` (two tenants may have one prefix on one cluster).
    """

    OPTION_NAMES = (*BaseOrmManager.OPTION_NAMES, "SCHEMA", "MAX_OPEN_CLIENTS", "ALLOW_SHARED_DATABASES")
    default_migration_asst = EsMigrationAsst
    test_databases = EsTestIndices

    def __init__(self, orm_id: str, settings: Mapping[str, Mapping[str, Any]], options: Mapping[str, Any]) -> None:
        super().__init__(orm_id, settings, options)
        if orm_id != ORM_ID:
            raise ConfigurationError(f"this manager is for the ORM id {ORM_ID!r}, not {orm_id!r}")
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

    def uninstall(self) -> None:
        """Undo :meth:`install` and close what no request uses."""
        dsl.uninstall()
        self.pool.close()

    def prepare(
        self, tenant_id: str, config: Mapping[str, Mapping[str, Any]], previous: Any
    ) -> dict[str, TenantClients]:
        """Build the clients of one tenant by alias; nothing is opened."""
        clients, faults = dict[str, TenantClients](), list[tuple[str, str]]()
        for alias, template in self.templates.items():
            try:
                cluster, prefix = es_settings.build(template, config.get(alias, {}), tenant_id)
            except RecordInvalid as error:
                faults += [(f"orm_config.{self.orm_id}.{alias}.{key}", what) for key, what in error.problems]
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

    def locations(self, config: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Each template alias to which ``config`` gives a prefix without the tenant's id in it, with its place."""
        for alias, template in self.templates.items():
            merged = {**template, **config.get(alias, {})}
            prefix = merged.get("INDEX_PREFIX", es_settings.DEFAULT_PREFIX)
            if isinstance(prefix, str) and "{tenant}" not in prefix and not host_faults(merged):
                yield alias, (prefix, *es_settings.addresses(merged["HOSTS"]))

    def overlaps(self, configs: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Iterator[tuple[str, str, str]]:
        """``(alias, tenant, other tenant)`` wherever the tenant's prefix begins with the other's on one cluster."""
        for alias, template in self.templates.items():
            found: list[tuple[tuple[str, ...], str, str]] = []
            for tenant_id, config in configs.items():
                about = config.get(alias, {})
                merged = {**template, **about}
                prefix = es_settings.prefix_of(template, about, tenant_id)
                if isinstance(prefix, str) and not host_faults(merged):
                    found.append((es_settings.addresses(merged["HOSTS"]), prefix, tenant_id))
            yield from ((alias, tenant_id, other) for tenant_id, other in es_settings.nested_prefixes(found))

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
