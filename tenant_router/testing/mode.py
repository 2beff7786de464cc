"""Test mode: the process has the test tenants only, no config store and no real tenant.

The test tenant lives in the test databases that Django creates from the templates. With
``ALIASES: "template"`` Django's own handling of those aliases applies while it is bound, so a
suite cannot tell the difference; with ``"tenant"`` it has the names of production.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NoReturn

from tenant_router import context as _context
from tenant_router import identity, runtime
from tenant_router.cache.patch import PLAIN
from tenant_router.conf import TESTS, conf
from tenant_router.config_store.base import pack
from tenant_router.exceptions import ConfigurationError, StoreUnavailable, TenantNotFound
from tenant_router.managers import tenant_context_manager
from tenant_router.managers.registry import Source
from tenant_router.orm_backends.django_orm.databases import Database, Databases, PlainDatabases
from tenant_router.orm_backends.django_orm.manager import DjangoOrmManager
from tenant_router.runtime import commands
from tenant_router.tenant_context import PlainContext, TenantContext
from tenant_router.testing import database_names, declared_databases, flushing, orm_databases, strict
from tenant_router.testing.database_guard import DatabaseGuard
from tenant_router.unit_of_work import AmbientUnit

_ORM = "django_orm"


class TestTenantsOnly(Source):
    """Where the registry finds tenants in a test run: there are no others than the prepared ones."""

    def synchronise(self) -> None:
        """There is nothing to wait for."""

    def load(self, tenant_id: str) -> TenantContext:
        """Every test tenant is prepared from the start."""
        raise TenantNotFound(f"{tenant_id!r} is no tenant of this test run", tenant_id)

    def look_up(self, tenant_id: str) -> bool:
        """A real tenant is never found."""
        return False


class UnreachableStore:
    """Replaces the config store in a test run: commands and the lifecycle API must not reach real tenants."""

    def close(self) -> None:
        """There is nothing to close."""

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)
        raise StoreUnavailable(
            f"a test run has no config store: its tenants are those of {TESTS}, of the test cases and of the marks"
        )


class TestMode:
    """Switches the process to the tenants of ``TENANT_ROUTER_TEST_SETTINGS``, and back.

    ``label``: of this process, where several run tests; it is part of its test databases' names.
    """

    __test__ = False  # pytest would collect a class of this name

    def __init__(self, label: str = "") -> None:
        options = conf.tests
        self.tenant_id = identity.check_tenant_id(options["TENANT_ID"])
        if options["ALIASES"] not in ("template", "tenant"):
            raise ConfigurationError(f"{TESTS}['ALIASES'] is 'template' or 'tenant', not {options['ALIASES']!r}")
        self.production_aliases, self.strict = options["ALIASES"] == "tenant", options["STRICT"]
        self.runtime = runtime.get()
        self.other_ids: list[str] = []
        self._note_ids(options["OTHER_TENANT_IDS"])
        self.guard = DatabaseGuard(self.tenant_id)
        orms = {orm_id: orm for orm_id, orm in self.runtime.orms.items() if not isinstance(orm, DjangoOrmManager)}
        self.label, self.orm_databases = label, orm_databases.of_orms(orms, conf.service)

    @property
    def manager(self) -> DjangoOrmManager | None:
        """The Django ORM's manager, if the project uses one."""
        manager = self.runtime.orms.get(_ORM)
        return manager if isinstance(manager, DjangoOrmManager) else None

    def begin(self) -> None:
        """Bind the test tenant for the whole process; the store is out of reach until :meth:`end`."""
        if _context.stack.get():
            raise ConfigurationError(f"tenant {_context.stack.get()[-1].id!r} is bound: a test run binds its own")
        commands.uninstall()
        declared_databases.install(self.other_databases)
        self._leave_production()
        for databases in self.orm_databases.values():
            databases.begin(self.label)
        flushing.install(self.flush)
        self.bind(PlainContext(self.tenant_id, 0, self._plain_parts()))
        if self.strict:
            strict.install()
        self.prepare_others()

    def end(self) -> None:
        """Undo :meth:`begin`."""
        if self.strict:
            strict.uninstall()
        _context.stack.set(())
        _context.set_testing(False)
        flushing.uninstall()
        for databases in self.orm_databases.values():
            databases.end()
        self._return_to_production()
        declared_databases.uninstall()
        commands.install()

    def bind(self, test: TenantContext) -> None:
        """Have ``test`` be the test tenant: found where nothing is bound, or with STRICT in this thread alone."""
        _context.set_testing(True, None if self.strict else test)
        _context.stack.set((AmbientUnit(), test) if self.strict else ())
        tenant_context_manager.any_host = test
        self.publish(test)

    def prepare_others(self) -> None:
        """Prepare the other test tenants, from the names that the templates' test databases have now."""
        for tenant_id in self.other_ids:
            self.publish(TenantContext(tenant_id, 0, self._own_parts(tenant_id)))

    def add(self, tenant_ids: Iterable[str]) -> None:
        """More test tenants; before the databases are created."""
        self._note_ids(tenant_ids)
        self.prepare_others()

    def contexts(self) -> list[TenantContext]:
        """The context of each test tenant."""
        return [tenant_context_manager.get_by_id(tenant_id) for tenant_id in (self.tenant_id, *self.other_ids)]

    def switch_to(self, label: str) -> None:
        """Have every tenant lead to the test databases of the process ``label``; Django's own stay as they are."""
        self.label = label
        for databases in self.orm_databases.values():
            databases.begin(label)
        test, *others = self.contexts()
        self.bind(PlainContext(test.id, 0, {**test.parts, **self._orm_parts(test.id)}))
        for other in others:
            self.publish(TenantContext(other.id, 0, {**other.parts, **self._orm_parts(other.id)}))

    def flush(self) -> None:
        """Empty the databases without transactions that were written to since the last time."""
        for databases in self.orm_databases.values():
            databases.flush(self.contexts())

    def publish(self, context: TenantContext) -> None:
        """Have ``context`` be the current one of its tenant."""
        tenant_context_manager.publish(context.id, pack(0, "A", ""), context)

    def other_databases(self) -> list[Database]:
        """The databases of the other test tenants."""
        found = (tenant_context_manager.get_by_id(other).parts.get(_ORM, {}) for other in self.other_ids)
        return [database for databases in found for database in dict.fromkeys(databases.values())]

    def replace_databases(self, databases: Databases) -> None:
        """Have the test tenant's context lead to ``databases``."""
        self.bind(PlainContext(self.tenant_id, 0, {**self._plain_parts(), _ORM: databases}))

    def _note_ids(self, tenant_ids: Iterable[str]) -> None:
        for tenant_id in map(identity.check_tenant_id, tenant_ids):
            known = {self.tenant_id, *self.other_ids}
            if tenant_id in known:
                continue
            twin = identity.alias_twin(
                tenant_id, self.manager.template_aliases if self.manager else (), known.__contains__
            )
            if twin is not None:
                raise ConfigurationError(f"the test tenants {twin!r} and {tenant_id!r} would have one connection alias")
            self.other_ids.append(tenant_id)

    def _leave_production(self) -> None:
        if self.runtime.reflector._thread is not None:
            self.runtime.reflector.stop()  # it would go on adding real tenants
        self._store = self.runtime.store
        self.runtime.store = self.runtime.reflector.store = UnreachableStore()  # type: ignore[assignment]
        tenant_context_manager.clear()
        tenant_context_manager.attach(TestTenantsOnly(), self.manager.template_aliases if self.manager else ())
        if self.manager is not None:
            self.manager.connections.database_guard = self.guard
            for alias, template in self.manager.templates.items():
                self.guard.note(self.tenant_id, alias, template)

    def _return_to_production(self) -> None:
        if self.manager is not None:
            self.manager.connections.database_guard = None
        self.runtime.store = self.runtime.reflector.store = self._store
        self.runtime._synchronised = False
        tenant_context_manager.clear()
        tenant_context_manager.attach(self.runtime, self.manager.template_aliases if self.manager else ())

    def _plain_parts(self) -> dict[str, Any]:
        parts = self._orm_parts(self.tenant_id)
        if self.manager is not None:
            parts[_ORM] = PlainDatabases(self.manager.default_template)
        return {**parts, "cache": PLAIN}

    def _own_parts(self, tenant_id: str) -> dict[str, Any]:
        parts = self._orm_parts(tenant_id)
        if self.manager is not None:
            parts[_ORM] = database_names.databases_of(tenant_id, self.manager, self.guard)
        return {**parts, "cache": self.runtime.caches.prepare(tenant_id, {}, None)}

    def _orm_parts(self, tenant_id: str) -> dict[str, Any]:
        return {orm_id: orm.parts(tenant_id, self.label) for orm_id, orm in self.orm_databases.items()}
