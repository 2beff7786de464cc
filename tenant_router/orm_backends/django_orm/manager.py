"""``DjangoOrmManager``: tenants' databases for the Django ORM."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

from django.db import OperationalError, connections
from django.db.backends.base.base import RAN_DB_VERSION_CHECK

from tenant_router import context as _context
from tenant_router import identity
from tenant_router.exceptions import BootError, ConfigurationError, RecordInvalid
from tenant_router.managers import tenant_context_manager
from tenant_router.orm_backends.base import BaseOrmManager, BaseOrmProvisioner, DatabaseIdentity
from tenant_router.orm_backends.django_orm import connections as handler
from tenant_router.orm_backends.django_orm import guards, identity_stamp, location
from tenant_router.orm_backends.django_orm import settings as database_settings
from tenant_router.orm_backends.django_orm.databases import Database, Databases
from tenant_router.orm_backends.django_orm.migration_asst import DjangoMigrationAsst
from tenant_router.orm_backends.django_orm.open_connections import OpenConnections
from tenant_router.orm_backends.django_orm.transactions import refuse_crossing
from tenant_router.secrets import mask_in_place
from tenant_router.tenant_context import TenantContext


class DjangoOrmManager(BaseOrmManager):
    """Makes each tenant's databases reachable through the template aliases.

    Options: ``RESERVED_CONN_ALIASES``, ``ROUTER_OPTS`` (``MIGRATE_STRATEGY``), ``MIGRATION_ASST``,
    ``MAX_OPEN_CONNECTIONS`` (tenant connections per process, 100), ``ALLOW_ENGINES`` (engines a
    record may name besides its template's), ``ALLOW_OPTIONS`` (keys that one may have besides the
    allow-listed), ``DEFAULT_TEMPLATE_ALIAS`` (what the router answers when several templates exist
    and none is called ``default``), ``ALLOW_SHARED_DATABASES``, and how databases are made:
    ``NAME_PATTERN``, ``MAINTENANCE`` (settings of a connection that may), ``CREATE_ROLES``,
    ``REFERENCE_DATABASE``.
    """

    OPTION_NAMES = (
        *BaseOrmManager.OPTION_NAMES,
        "ROUTER_OPTS",
        "MAX_OPEN_CONNECTIONS",
        "ALLOW_ENGINES",
        "ALLOW_OPTIONS",
        "ALLOW_SHARED_DATABASES",
        "DEFAULT_TEMPLATE_ALIAS",
        "NAME_PATTERN",
        "MAINTENANCE",
        "CREATE_ROLES",
        "REFERENCE_DATABASE",
    )
    default_migration_asst = DjangoMigrationAsst

    def __init__(self, orm_id: str, settings: Mapping[str, Mapping[str, Any]], options: Mapping[str, Any]) -> None:
        super().__init__(orm_id, settings, options)
        self._reserved = {alias: settings[alias] for alias in self.reserved_aliases}
        if "MAINTENANCE" in options:
            _mask(options["MAINTENANCE"])
        for template in self.templates.values():
            database_settings.complete(cast("dict[str, Any]", template))
        self.max_open_connections = int(options.get("MAX_OPEN_CONNECTIONS", 100))
        self.asynchronous = False
        self.connections = OpenConnections(self.max_open_connections, refuse_crossing)
        self.default_template = self._default_template()

    def install(self) -> None:
        """Take over ``django.db.connections``; request start and end delimit the units of work of a thread."""
        handler.install(self, self.connections)
        guards.install(self.templates)

    def check_health(self, alias: str) -> None:
        """Connect to the bound tenant's database, and ask it where a connection is open already."""
        connection = connections[alias]
        connection.ensure_connection()
        if not connection.is_usable():
            connection.close()
            raise OperationalError(f"the connection of {connection.alias!r} is lost")

    def uninstall(self) -> None:
        """Undo :meth:`install` and close the pools."""
        guards.uninstall()
        handler.uninstall()
        for database in self._databases():
            database.close_pools()
        self.connections.janitor.stop()

    def serve_asynchronously(self) -> None:
        """From now on requests come by ASGI. Raises ``BootError`` for templates that cannot be served so."""
        kept = [alias for alias, template in self.templates.items() if template.get("CONN_MAX_AGE", 0) != 0]
        if kept:
            raise BootError(
                f"CONN_MAX_AGE of the database alias {kept[0]!r} must be 0 under ASGI: each request has a thread "
                "of its own, and its connections would never be closed (use a pool instead)"
            )
        self.asynchronous = True

    def prepare(self, tenant_id: str, config: Mapping[str, Mapping[str, Any]], previous: Any) -> Databases:
        """Build the databases of one tenant; an unchanged one keeps its open connections."""
        databases, faults = Databases(), list[tuple[str, str]]()
        for template in self.templates:
            try:
                database = self._database(tenant_id, template, config.get(template, {}), previous)
            except RecordInvalid as error:
                faults += [(f"orm_config.{self.orm_id}.{template}.{key}", what) for key, what in error.problems]
                continue
            databases[template] = databases[database.alias] = database
        if faults:
            raise RecordInvalid(faults)
        databases.default = self.default_alias(tenant_id)
        return databases

    def default_alias(self, tenant_id: str) -> str:
        """The alias that the router answers for a tenant; empty where all aliases are reserved."""
        return identity.alias_for(tenant_id, self.default_template) if self.templates else ""

    def retire(self, previous: Any, current: Any) -> None:
        """Let the connections to databases that are no longer current drain: each closes when its unit ends."""
        kept = set(map(id, (current or {}).values()))
        replaced = {database for database in previous.values() if id(database) not in kept}
        for database in replaced:
            RAN_DB_VERSION_CHECK.discard(database.alias)  # the alias's next database may be of another version
        self.connections.retire(replaced)

    def reset_after_fork(self) -> None:
        """The parent's connections are not ours to close."""
        self.connections.reset_after_fork()
        for database in self._databases():
            database.reset_after_fork()

    def database_of(self, alias: str) -> Database | None:
        """The database that ``alias`` means now: of the bound tenant, or of the tenant that it names.

        ``None`` for static aliases, and for template aliases while no tenant is bound. Raises
        ``TenantMismatch`` for another tenant's alias while a tenant is bound.
        """
        if alias in self.reserved_aliases:
            return None
        found = _context.bound()
        own: Database | None = found[-1].parts[self.orm_id].get(alias) if found else None
        if own is not None:
            return own
        if alias in self.templates:
            return None
        found_by_alias = self.found_by_alias(alias)
        return None if found_by_alias is None else found_by_alias[1]

    def found_by_alias(self, alias: str) -> tuple[TenantContext, Database] | None:
        """The tenant that a connection alias names, and its database; ``None`` where it is nobody's.

        Raises ``TenantMismatch`` for another tenant's alias while a tenant is bound.
        """
        tenant_id = tenant_context_manager.owner_of(alias)
        if tenant_id is None:
            return None
        context = tenant_context_manager.get_in_any_state(tenant_id)
        database: Database = context.parts[self.orm_id][alias]
        bound = _context.stack.get()  # and not what a test run finds where nothing is bound
        if bound:
            raise handler.mismatch(database, bound[-1])
        return context, database

    stamps = True

    def expect_stamp(self, prepared: Databases, incarnation: str) -> None:
        """Have each new connection find ``incarnation`` in its database."""
        for database in prepared.values():
            database.incarnation = incarnation

    def read_stamps(self, alias: str) -> list[DatabaseIdentity]:
        """What the bound tenant's database says of whose it is."""
        return identity_stamp.read(connections[alias])

    def write_stamp(self, alias: str, stamp: DatabaseIdentity) -> None:
        """Have the bound tenant's database say whose it is."""
        identity_stamp.write(connections[alias], stamp)

    @property
    def provisioner(self) -> BaseOrmProvisioner:
        """Makes databases on PostgreSQL and SQLite. Raises ``ConfigurationError`` for a wrong ``NAME_PATTERN``."""
        from tenant_router.orm_backends.django_orm.provisioning import DjangoProvisioner  # servers need it never

        return DjangoProvisioner(self)

    def locations(
        self, tenant_id: str, config: Mapping[str, Mapping[str, Any]]
    ) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Each template alias with what tells the database that ``config`` gives it from every other one."""
        for alias, template in self.templates.items():
            for found in location.locations(template, config.get(alias, {})):
                yield alias, found

    def reserved_locations(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Each reserved alias with what tells its database from every other one."""
        for alias, settings in self._reserved.items():
            for found in location.of_settings(settings):
                yield alias, found

    def _databases(self) -> Iterator[Database]:
        """Every tenant's databases, each once for its template's and once for its own alias."""
        for context in list(tenant_context_manager.prepared.values()):
            yield from context.parts[self.orm_id].values()

    def _database(self, tenant_id: str, template: str, config: Mapping[str, Any], previous: Any) -> Database:
        engines, options = self.options.get("ALLOW_ENGINES", ()), self.options.get("ALLOW_OPTIONS", ())
        settings = database_settings.build(self.templates[template], config, engines, options)
        if self.asynchronous and settings["CONN_MAX_AGE"] != 0:
            raise RecordInvalid([("CONN_MAX_AGE", "must be 0 under ASGI: each request has a thread of its own")])
        old: Database | None = previous.get(template) if previous else None
        if old is not None and old.settings == settings:
            return old
        return Database(tenant_id, template, identity.alias_for(tenant_id, template), settings)

    def _default_template(self) -> str:
        if "default" in self.templates:
            return "default"
        if len(self.templates) == 1:
            return next(iter(self.templates))
        chosen = self.options.get("DEFAULT_TEMPLATE_ALIAS")
        if chosen not in self.templates and self.templates:
            raise ConfigurationError(
                f"{self.orm_id}: several template aliases ({', '.join(self.templates)}) and none is called 'default': "
                "name one in OPTIONS['DEFAULT_TEMPLATE_ALIAS']"
            )
        return str(chosen or "")


def _mask(maintenance: Any) -> None:
    """Hide the secrets of ``OPTIONS["MAINTENANCE"]`` from whoever prints the settings."""
    if not isinstance(maintenance, dict):
        raise ConfigurationError("OPTIONS['MAINTENANCE'] of 'django_orm' must be a dictionary, as those in DATABASES")
    mask_in_place(maintenance)
