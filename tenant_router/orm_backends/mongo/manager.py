"""``MongoManager``: the base of the managers for PyModm and MongoEngine."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from typing import Any

from tenant_router import context as _context
from tenant_router.exceptions import ConfigurationError, RecordInvalid
from tenant_router.orm_backends.base import BaseOrmManager, no_test_database
from tenant_router.orm_backends.mongo import settings, validation
from tenant_router.orm_backends.mongo.clients import Clients, TenantDatabase
from tenant_router.orm_backends.mongo.creation import MongoTestDatabases


class MongoManager(BaseOrmManager):
    """Makes each tenant's MongoDB databases reachable through the template aliases.

    Options: ``RESERVED_CONN_ALIASES``, ``MIGRATION_ASST``, ``ALLOW_SHARED_DATABASES``,
    ``MAX_CLIENTS`` (clients that are kept per process while nobody is using them, 100).
    """

    test_databases = MongoTestDatabases
    OPTION_NAMES = (*BaseOrmManager.OPTION_NAMES, "ALLOW_SHARED_DATABASES", "MAX_CLIENTS")

    def __init__(self, orm_id: str, settings: Mapping[str, Mapping[str, Any]], options: Mapping[str, Any]) -> None:
        super().__init__(orm_id, settings, options)
        self._refuse_wrong_settings(settings)
        self.clients = Clients(int(options.get("MAX_CLIENTS", 100)))
        # What an application connects under these aliases itself is never used. In a test run they are all there are.
        self.replaced_aliases: Container[str] = self.templates
        self._reserved = {alias: settings[alias] for alias in self.reserved_aliases}
        self.central: dict[str, TenantDatabase] = {}

    def prepare(
        self, tenant_id: str, config: Mapping[str, Mapping[str, Any]], previous: Any
    ) -> dict[str, TenantDatabase]:
        """Build the databases of one tenant; an unchanged one keeps what is open. No I/O."""
        databases, problems = dict[str, TenantDatabase](), list[tuple[str, str]]()
        for alias, template in self.templates.items():
            try:
                target = settings.build(template, config.get(alias, {}))
            except RecordInvalid as error:
                problems += [(f"orm_config.{self.orm_id}.{alias}.{key}", what) for key, what in error.problems]
                continue
            old: TenantDatabase | None = previous.get(alias) if previous else None
            databases[alias] = old if old is not None and old.target == target else self._database(alias, target)
        if problems:
            raise RecordInvalid(problems)
        return databases

    def retire(self, previous: Any, current: Any) -> None:
        """Nothing to do: a client is closed when no context, and nothing that came of one, refers to it."""

    def reset_after_fork(self) -> None:
        """The parent's clients are not ours to use or to close."""
        self.clients.reset_after_fork()

    def uninstall(self) -> None:
        """Close all clients."""
        self.central.clear()
        self.clients.close()

    def locations(self, config: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Each template alias with what tells the database that ``config`` gives it from every other one."""
        for alias, template in self.templates.items():
            found = settings.location(template, config.get(alias, {}))
            if found is not None:
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

    def central_database(self, alias: str) -> TenantDatabase:
        """The database that the settings give to a reserved alias. Raises ``KeyError`` for other aliases.

        In a test run ``RealDatabase``: an alias that only the application knows has no test database.
        """
        found = self.central.get(alias)
        if found is None:
            if alias in self.replaced_aliases and alias not in self._reserved:
                raise no_test_database(self.orm_id, alias)
            own = self._reserved[alias]
            found = self.central.setdefault(alias, self._database(alias, settings.build({}, own)))
        return found

    def _database(self, alias: str, target: settings.Target) -> TenantDatabase:
        return TenantDatabase(alias, target, self.clients.cluster(target))

    def _refuse_wrong_settings(self, found: Mapping[str, Mapping[str, Any]]) -> None:
        wrong = [f"{alias}.{key} {what}" for alias, own in found.items() for key, what in validation.faults(own)]
        if wrong:
            raise ConfigurationError(f"the settings of {self.orm_id!r} are wrong: {'; '.join(wrong)}")
