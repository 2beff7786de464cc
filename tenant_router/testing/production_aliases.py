"""Gives the test tenant's databases the aliases that they would have in production (``ALIASES: "tenant"``)."""

from __future__ import annotations

from typing import Any

from django.conf import settings as django_settings
from django.db import connections
from django.db.utils import load_backend

from tenant_router import identity
from tenant_router.managers import tenant_context_manager
from tenant_router.orm_backends.django_orm.databases import Database, Databases, PlainDatabases
from tenant_router.orm_backends.django_orm.wrapper import tenant_wrapper_class
from tenant_router.testing.mode import TestMode

_ORM = "django_orm"


def apply(mode: TestMode) -> None:
    """Rename the test tenant's databases as production has them, once Django has created them.

    The connection objects stay the same: an in-memory SQLite database lives in them.
    """
    if not mode.production_aliases or mode.manager is None:
        return
    handler: Any = connections
    databases = Databases()
    for template in mode.manager.template_aliases:
        wrapper = handler[template]
        del handler[template]
        alias = identity.alias_for(mode.tenant_id, template)
        database = Database(mode.tenant_id, template, alias, wrapper.settings_dict)
        databases[template] = databases[alias] = database
        mine = mode.manager.connections.mine()
        wrapper.alias, wrapper.__class__ = alias, tenant_wrapper_class(wrapper.settings_dict["ENGINE"])
        wrapper.belong_to(database, mine)
        mine.wrappers[database] = wrapper
    databases.default = mode.manager.default_alias(mode.tenant_id)
    mode.replace_databases(databases)
    django_settings.DATABASES = _Settings(django_settings.DATABASES, databases)


class _Settings(dict[str, Any]):
    """``settings.DATABASES``, which knows the own aliases, too: code of tests looks a connection's alias up in it."""

    def __init__(self, original: dict[str, Any], databases: Databases) -> None:
        super().__init__(original)
        self.original, self._databases = original, databases

    def __missing__(self, alias: str) -> Any:
        return self._databases[alias].settings


def restore(mode: TestMode) -> None:
    """Undo :func:`apply`, so that Django finds what it created."""
    databases = tenant_context_manager.get_by_id(mode.tenant_id).parts.get(_ORM)
    if mode.manager is None or not databases:
        return
    if isinstance(django_settings.DATABASES, _Settings):
        django_settings.DATABASES = django_settings.DATABASES.original
    handler: Any = connections
    wrappers = {template: handler[template] for template in mode.manager.template_aliases}
    mode.replace_databases(PlainDatabases(mode.manager.default_template))
    slot = mode.manager.connections.mine()
    for template, wrapper in wrappers.items():
        slot.wrappers.pop(databases[template], None)
        wrapper.alias, wrapper.__class__ = template, load_backend(wrapper.settings_dict["ENGINE"]).DatabaseWrapper
        handler[template] = wrapper
