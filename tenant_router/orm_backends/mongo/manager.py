"""``MongoManager``: the base of the managers for PyModm and MongoEngine."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from typing import Any

from tenant_router import context as _context
from tenant_router.exceptions import ConfigurationError, RecordInvalid
from tenant_router.orm_backends import host_names
from tenant_router.orm_backends.base import BaseOrmManager, no_test_database
from tenant_router.orm_backends.mongo import cursors, settings, validation
from tenant_router.orm_backends.mongo.clients import Clients
from tenant_router.orm_backends.mongo.creation import MongoTestDatabases
from tenant_router.orm_backends.mongo.databases import CentralDatabase, TenantDatabase, same
from tenant_router.orm_backends.mongo.settings import places


class MongoManager(BaseOrmManager):
    """Makes each tenant's MongoDB databases reachable through the template aliases.

    Options: ``RESERVED_CONN_ALIASES``, ``MIGRATION_ASST``, ``ALLOW_SHARED_DATABASES``,
    ``ALLOW_OPTIONS`` (options that a record may have besides the allow-listed), ``MAX_CLIENTS``
    (clients of tenants per process, 100).
    """

    OPTION_NAMES = (*BaseOrmManager.OPTION_NAMES, "ALLOW_SHARED_DATABASES", "ALLOW_OPTIONS", "MAX_CLIENTS")
    location_kind = "mongodb"
    test_databases = MongoTestDatabases

    def __init__(self, orm_id: str, settings: Mapping[str, Mapping[str, Any]], options: Mapping[str, Any]) -> None:
        super().__init__(orm_id, settings, options)
        self._refuse_wrong_settings(settings)
        self.clients = Clients(orm_id, self._limit())
        self._clusters = host_names.joined(places(own, {})[0] for own in settings.values())
        # What an application connects under these aliases itself is never used. In a test run they are all there are.
        self.replaced_aliases: Container[str] = self.templates
        self._reserved = {alias: settings[alias] for alias in self.reserved_aliases}
        self.central: dict[str, CentralDatabase] = {}

    def prepare(
        self, tenant_id: str, config: Mapping[str, Mapping[str, Any]], previous: Any
    ) -> dict[str, TenantDatabase]:
        """Build the databases of one tenant; an unchanged one keeps what is open. No I/O."""
        databases, problems = dict[str, TenantDatabase](), list[tuple[str, str]]()
        for alias, template in self.templates.items():
            try:
                target = settings.build(template, config.get(alias, {}), self.options.get("ALLOW_OPTIONS", ()))
            except RecordInvalid as error:
                problems += [(f"orm_config.{self.orm_id}.{alias}.{key}", what) for key, what in error.problems]
                continue
            databases[alias] = same(previous, alias, target) or self._database(tenant_id, alias, target)
        if problems:
            raise RecordInvalid(problems)
        return databases

    def retire(self, previous: Any, current: Any) -> None:
        """Close clients that no tenant needs any more, unless a unit of work uses them. No I/O."""
        for alias, database in previous.items():
            if current is None or current.get(alias) is not database:
                database.cluster.retire(database)

    def install(self) -> None:
        """Have cursors ask whose they are."""
        cursors.install(self.orm_id)

    def reset_after_fork(self) -> None:
        """The parent's clients are not ours to use or to close."""
        self.clients.reset_after_fork()
        for central in self.central.values():
            central.reset()

    def uninstall(self) -> None:
        """Close all clients."""
        cursors.uninstall(self.orm_id)
        for central in self.central.values():
            central.close()
        self.central.clear()
        self.clients.close_all()

    def locations(
        self, tenant_id: str, config: Mapping[str, Mapping[str, Any]]
    ) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Each template alias with what tells the database that ``config`` gives it from every other one."""
        for alias, template in self.templates.items():
            for found in settings.locations(template, config.get(alias, {}), self._clusters):
                yield alias, found

    def reserved_locations(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Each reserved alias with what tells its database from every other one."""
        for alias, own in self._reserved.items():
            for found in settings.locations({}, own, self._clusters):
                yield alias, found

    def check_health(self, alias: str) -> None:
        """Ask the server of the bound tenant's database."""
        self.database_of(alias).database.command("ping")

    def database_of(self, alias: str) -> TenantDatabase:
        """The bound tenant's database for a template alias.

        Raises ``TenantContextMissing`` without a tenant, and the error of a tenant that could not be bound.
        """
        bound = _context.stack.get() or _context.ambient
        if bound and bound[0].over:
            bound = _context.bound()  # or what was bound by a unit of work that has ended would be used
        if not bound:
            raise _context.missing(f"connection alias {alias!r} of {self.orm_id!r}")
        return bound[-1].parts[self.orm_id][alias]  # type: ignore[no-any-return]

    def central_database(self, alias: str) -> CentralDatabase:
        """The database that the settings give to a reserved alias. Raises ``KeyError`` for other aliases.

        In a test run ``RealDatabase``: an alias that only the application knows has no test database.
        """
        found = self.central.get(alias)
        if found is None:
            if alias in self.replaced_aliases and alias not in self._reserved:
                raise no_test_database(self.orm_id, alias)
            own = self._reserved[alias]
            found = self.central.setdefault(alias, CentralDatabase(settings.central(own), self.clients.make))
        return found

    def _database(self, tenant_id: str, alias: str, target: settings.Target) -> TenantDatabase:
        return TenantDatabase(tenant_id, alias, target, self.clients.cluster(target), self)

    def _limit(self) -> int:
        limit = self.options.get("MAX_CLIENTS", 100)
        if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
            raise ConfigurationError(f"OPTIONS['MAX_CLIENTS'] of {self.orm_id!r} is not a whole number of 1 or more")
        return limit

    def _refuse_wrong_settings(self, found: Mapping[str, Mapping[str, Any]]) -> None:
        wrong = [f"{alias}.{key} {what}" for alias, own in found.items() for key, what in validation.faults(own)]
        if wrong:
            raise ConfigurationError(f"the settings of {self.orm_id!r} are wrong: {'; '.join(wrong)}")
