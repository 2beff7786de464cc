"""What of Django's own state would mix tenants, kept apart.

Each patch says which attribute it relies on; ``install`` and ``uninstall`` are idempotent.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Collection, Iterator, MutableMapping
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.db.models.base import ModelState
from django.db.utils import ConnectionRouter

from tenant_router import context as _context
from tenant_router.orm_backends.django_orm import ownership
from tenant_router.orm_backends.django_orm.connections import template_of
from tenant_router.orm_backends.django_orm.wrapper import UnboundWrapper

if TYPE_CHECKING:
    from tenant_router.orm_backends.django_orm.databases import Database, Databases


class OriginDescriptor:
    """``ModelState.db`` (django/db/models/base.py): where an instance came from.

    What was read through a template alias belongs to the tenant that was bound then, so the
    template's name is translated to the tenant's own alias when it is assigned: by loading,
    saving, or relating. A data descriptor, because the attribute is set on each instance, for
    each row that is read: only a template's name costs more than a look into a small set.
    """

    def __init__(self, templates: Collection[str]) -> None:
        self._templates = frozenset(templates)

    def __get__(self, state: Any, owner: type) -> Any:
        return None if state is None else state.__dict__.get("db")

    def __set__(self, state: Any, alias: str | None) -> None:
        if alias in self._templates:
            bound = _context.stack.get() or _context.ambient
            database = bound[-1].parts["django_orm"].get(alias) if bound else None
            alias = alias if database is None else database.alias
        state.__dict__["db"] = alias


class PerDatabase(MutableMapping[Any, Any]):
    """A dictionary of its own for each database of each tenant at each revision, and one for no tenant.

    By revision too: a request that still runs on a tenant's old database must not fill what
    the tenant's new database is asked for.
    """

    def __init__(self) -> None:
        self._unbound: dict[Any, Any] = {}
        self._by_database: weakref.WeakKeyDictionary[Database, dict[Any, Any]] = weakref.WeakKeyDictionary()

    def __getitem__(self, key: Any) -> Any:
        return self._mine()[key]

    def __setitem__(self, key: Any, value: Any) -> None:
        self._mine()[key] = value

    def __delitem__(self, key: Any) -> None:
        del self._mine()[key]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._mine())

    def __len__(self) -> int:
        return len(self._mine())

    def __eq__(self, other: object) -> bool:
        return self._mine() == other

    __hash__ = None  # type: ignore[assignment]

    def _mine(self) -> dict[Any, Any]:
        bound = _context.current()
        if bound is None:
            return self._unbound
        databases: Databases = bound.parts["django_orm"]
        key = databases.get(databases.default)
        if key is None:
            return self._unbound  # a test tenant that lives in the templates' own databases
        found = self._by_database.get(key)
        # setdefault keeps one dictionary when two threads come here at once
        return found if found is not None else self._by_database.setdefault(key, {})


class PerAlias(PerDatabase):
    """A :class:`PerDatabase` whose keys are aliases: two names of one database are one key."""

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__(_database(key))

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(_database(key), value)

    def __delitem__(self, key: Any) -> None:
        super().__delitem__(_database(key))


def _database(alias: Any) -> Any:
    bound = _context.current()
    return alias if bound is None else bound.parts["django_orm"].get(alias, alias)


class _ContentTypeCache:
    """``ContentTypeManager._cache`` (django/contrib/contenttypes/models.py), set on each manager in ``__init__``."""

    def __get__(self, manager: Any, owner: type) -> Any:
        if manager is None:
            return self
        return manager.__dict__.setdefault("_tenant_router_cache", PerAlias())

    def __set__(self, manager: Any, value: Any) -> None:
        manager.__dict__["_tenant_router_cache"] = PerAlias()


_undo: list[Callable[[], None]] = []


def install(templates: Collection[str]) -> None:
    """Keep apart what Django keeps for the whole process; ``templates`` are the aliases that mean a tenant's."""
    if _undo:
        return
    _replace(ModelState, "db", OriginDescriptor(templates))
    ownership.install(_replace)
    _replace(ConnectionRouter, "allow_migrate", _allow_migrate)
    if apps.is_installed("django.contrib.contenttypes"):
        from django.contrib.contenttypes.models import ContentType, ContentTypeManager

        _replace(ContentTypeManager, "_cache", _ContentTypeCache())
        # Managers are copied (by db_manager(), and from local_managers when Django expires its caches): as with
        # Django's own dictionary, all copies share one cache, which so must be there before they are made.
        shared = PerAlias()
        for manager in (*ContentType._meta.local_managers, *ContentType._meta.managers):
            manager.__dict__["_tenant_router_cache"] = shared
    if apps.is_installed("django.contrib.sites"):
        _install_sites()


def uninstall() -> None:
    """Undo :func:`install`."""
    while _undo:
        _undo.pop()()


def install_in_command() -> None:
    """After :func:`install`: what commands alone need, which would cost each server a tenth of our imports."""
    from django.db.migrations.loader import MigrationLoader

    original = MigrationLoader.check_consistent_history
    if not _undo or hasattr(original, "__wrapped__"):
        return

    @functools.wraps(original)
    def check_consistent_history(self: MigrationLoader, connection: Any) -> None:
        """``makemigrations`` asks each database to which a router allows migrations; an unbound template is none."""
        if not isinstance(connection, UnboundWrapper):
            original(self, connection)

    _replace(MigrationLoader, "check_consistent_history", check_consistent_history)


def _allow_migrate(self: Any, db: str, app_label: str, **hints: Any) -> Any:
    """``ConnectionRouter.allow_migrate`` (django/db/utils.py), whose routers know the aliases of the settings only."""
    template = template_of(db)
    for router in self.routers:
        if hasattr(router, "allow_migrate"):
            own = getattr(router, "takes_tenant_aliases", False)
            answer = router.allow_migrate(db if own else template, app_label, **hints)
            if answer is not None:
                return answer
    return True


def _install_sites() -> None:
    # SITE_CACHE (django/contrib/sites/models.py) is keyed by SITE_ID and host; clear_cache() binds the name anew.
    from django.contrib.sites import models

    _replace(models, "SITE_CACHE", PerDatabase())
    _replace(models.SiteManager, "clear_cache", lambda manager: models.SITE_CACHE.clear())


def _replace(owner: Any, name: str, value: Any) -> None:
    existed, original = name in vars(owner), vars(owner).get(name)
    setattr(owner, name, value)
    _undo.append(lambda: setattr(owner, name, original) if existed else delattr(owner, name))
