"""A test run's tenants: no store, no server, and no real tenant within reach.

The test tenant lives in the test databases that Django creates from the templates. With
``ALIASES: "template"`` Django's own handling of those aliases applies while it is bound, so a
suite cannot tell the difference; with ``"tenant"`` it has the names of production.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterable
from typing import Any

from django.db import connections

from tenant_router import command_patch, identity, runtime
from tenant_router import context as _context
from tenant_router.cache.patch import PLAIN
from tenant_router.conf import TESTS, conf
from tenant_router.context import PlainContext, TenantContext
from tenant_router.exceptions import ConfigurationError, TenantNotFound
from tenant_router.managers import tenant_context_manager
from tenant_router.managers.registry import Source
from tenant_router.orm_backends.base import BaseOrmManager
from tenant_router.orm_backends.django_orm.connections import TenantConnectionHandler
from tenant_router.orm_backends.django_orm.manager import DjangoOrmManager
from tenant_router.orm_backends.django_orm.slots import Database, Databases, PlainDatabases
from tenant_router.pipeline import pack
from tenant_router.testing import declared

_ORM = "django_orm"


class NoStore(Source):
    """There are the test tenants, and nothing else can be asked for."""

    def synchronise(self) -> None:
        """There is nothing to wait for."""

    def load(self, tenant_id: str) -> TenantContext:
        """Every test tenant is prepared from the start."""
        raise TenantNotFound(f"{tenant_id!r} is no tenant of this test run", tenant_id)

    def look_up(self, tenant_id: str) -> bool:
        """A real tenant is never found."""
        return False


class TestMode:
    """Switches the process to the tenants of ``TENANT_ROUTER_TEST_SETTINGS``, and back."""

    def __init__(self) -> None:
        options = conf.tests
        self.tenant_id = identity.check_tenant_id(options["TENANT_ID"])
        self.other_ids = [identity.check_tenant_id(other) for other in options["OTHER_TENANT_IDS"]]
        if options["ALIASES"] not in ("template", "tenant"):
            raise ConfigurationError(f"{TESTS}['ALIASES'] is 'template' or 'tenant', not {options['ALIASES']!r}")
        self.own_names, self.strict = options["ALIASES"] == "tenant", options["STRICT"]
        self.runtime = runtime.get()

    @property
    def manager(self) -> DjangoOrmManager | None:
        """The Django ORM's manager, if the project uses one."""
        manager = self.runtime.orms.get(_ORM)
        return manager if isinstance(manager, DjangoOrmManager) else None

    def begin(self) -> None:
        """Bind the test tenant for the whole process; the store is out of reach until :meth:`end`."""
        command_patch.uninstall()
        declared.install()
        registry = tenant_context_manager
        registry.clear()
        registry.attach(NoStore(), self.manager.template_aliases if self.manager else ())
        test = PlainContext(self.tenant_id, 0, self._plain_parts())
        _context.set_testing(True, None if self.strict else test)
        registry.any_host = test
        self.publish(test)
        self.rename_others()

    def rename_others(self) -> None:
        """Prepare the other test tenants, from the names that the templates' test databases have now."""
        for tenant_id in self.other_ids:
            self.publish(TenantContext(tenant_id, 0, self._own_parts(tenant_id)))

    def add(self, tenant_ids: Iterable[str]) -> None:
        """More test tenants; before the databases are created."""
        new = dict.fromkeys(identity.check_tenant_id(tenant_id) for tenant_id in tenant_ids)
        self.other_ids += [other for other in new if other not in (*self.other_ids, self.tenant_id)]
        self.rename_others()

    def end(self) -> None:
        """Undo :meth:`begin`."""
        _context.set_testing(False)
        tenant_context_manager.clear()
        tenant_context_manager.attach(self.runtime, self.manager.template_aliases if self.manager else ())
        declared.uninstall()
        command_patch.install()

    def publish(self, context: TenantContext) -> None:
        """Have ``context`` be the current one of its tenant."""
        tenant_context_manager.publish(context.id, pack(0, "A", ""), context)

    def take_own_names(self) -> None:
        """Rename the test tenant's databases as production has them, once Django has created them.

        The connection objects stay the same: an in-memory SQLite database lives in them.
        """
        if not self.own_names or self.manager is None:
            return
        handler: Any = connections
        databases = Databases()
        for template in self.manager.template_aliases:
            wrapper = handler[template]
            del handler[template]
            alias = identity.alias_for(self.tenant_id, template)
            database = Database(self.tenant_id, template, alias, wrapper.settings_dict)
            databases[template] = databases[alias] = database
            wrapper.alias = alias
            self.manager.slots.mine().wrappers[database] = wrapper
        databases.default = identity.alias_for(self.tenant_id, self.manager.default_template)
        self._replace_test_context(databases)

    def give_names_back(self) -> None:
        """Undo :meth:`take_own_names`, so that Django finds what it created."""
        if not self.own_names or self.manager is None:
            return
        handler: Any = connections
        databases = tenant_context_manager.get_by_id(self.tenant_id).parts[_ORM]
        wrappers = {template: handler[template] for template in self.manager.template_aliases}
        self._replace_test_context(PlainDatabases(self.manager.default_template))
        slot = self.manager.slots.mine()
        for template, wrapper in wrappers.items():
            slot.wrappers.pop(databases[template], None)
            wrapper.alias = template
            handler[template] = wrapper

    def other_databases(self) -> list[Database]:
        """The databases of the other test tenants."""
        found = (tenant_context_manager.get_by_id(other).parts.get(_ORM, {}) for other in self.other_ids)
        return [database for databases in found for database in dict.fromkeys(databases.values())]

    def _replace_test_context(self, databases: Databases) -> None:
        parts = {**self._plain_parts(), _ORM: databases}
        test = PlainContext(self.tenant_id, 0, parts)
        _context.set_testing(True, None if self.strict else test)
        tenant_context_manager.any_host = test
        self.publish(test)

    def _plain_parts(self) -> dict[str, Any]:
        parts: dict[str, Any] = {orm_id: self._test_part(orm) for orm_id, orm in self.runtime.orms.items()}
        if self.manager is not None:
            parts[_ORM] = PlainDatabases(self.manager.default_template)
        return {**parts, "cache": PLAIN}

    def _test_part(self, manager: BaseOrmManager) -> Any:
        if isinstance(manager, DjangoOrmManager):
            return None
        return manager.prepare(self.tenant_id, dict(manager.templates), None)

    def _own_parts(self, tenant_id: str) -> dict[str, Any]:
        parts: dict[str, Any] = {
            orm_id: manager.prepare(tenant_id, dict(manager.templates), None)
            for orm_id, manager in self.runtime.orms.items()
            if not isinstance(manager, DjangoOrmManager)
        }
        if self.manager is not None:
            parts[_ORM] = self._other_databases_of(tenant_id, self.manager)
        return {**parts, "cache": self.runtime.caches.prepare(tenant_id, {}, None)}

    def _other_databases_of(self, tenant_id: str, manager: DjangoOrmManager) -> Databases:
        databases, handler = Databases(), connections
        assert isinstance(handler, TenantConnectionHandler)
        for template in manager.template_aliases:
            settings = copy.deepcopy(dict.__getitem__(handler.settings, template))
            _name_for_tenant(settings, tenant_id)
            alias = identity.alias_for(tenant_id, template)
            databases[template] = databases[alias] = Database(tenant_id, template, alias, settings)
        databases.default = identity.alias_for(tenant_id, manager.default_template)
        return databases


def _name_for_tenant(settings: dict[str, Any], tenant_id: str) -> None:
    """Derive the name of another tenant's test database, whatever the template's own test name is."""
    suffix = hashlib.blake2b(tenant_id.encode(), digest_size=4).hexdigest()
    for holder in (settings, settings["TEST"]):
        name = holder.get("NAME")
        if name and name != ":memory:" and not str(name).startswith("file:"):
            holder["NAME"] = f"{name}_{suffix}"
    settings["TEST"]["MIRROR"] = None
