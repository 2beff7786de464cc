"""What of Django's own state would mix tenants, kept apart.

Each patch says which attribute it relies on; ``install`` and ``uninstall`` are idempotent.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection
from typing import Any

from django.apps import apps
from django.db.models.base import ModelState
from django.db.utils import ConnectionRouter

from tenant_router import context as _context
from tenant_router.orm_backends.django_orm import (
    content_types,
    cursors,
    forms,
    instances,
    lookups,
    querysets,
    related_managers,
    sites,
)
from tenant_router.orm_backends.django_orm.connections import template_of
from tenant_router.orm_backends.django_orm.ownership import refuse_foreign
from tenant_router.orm_backends.django_orm.per_database import remembering
from tenant_router.orm_backends.django_orm.unbound_wrapper import UnboundWrapper


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


_undo: list[Callable[[], None]] = []


def install(templates: Collection[str]) -> None:
    """Keep apart what Django keeps for the whole process; ``templates`` are the aliases that mean a tenant's."""
    if _undo:
        return
    _replace(ModelState, "db", OriginDescriptor(templates))
    for part in (querysets, instances, related_managers, lookups, forms, cursors):
        part.install(_replace)
    if apps.is_installed("django.contrib.auth"):
        _install_permissions()
    if apps.is_installed("django.contrib.contenttypes"):
        content_types.install(_replace)
    if apps.is_installed("django.contrib.sites"):
        sites.install(_replace)
    if apps.is_installed("django.contrib.postgres"):
        _install_type_oids()
    _replace(ConnectionRouter, "allow_migrate", _allow_migrate)


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


def _install_permissions() -> None:
    """``with_perm()`` takes the primary key of a permission (django/contrib/auth/backends.py)."""
    from django.contrib.auth.backends import ModelBackend

    original = ModelBackend.with_perm

    @functools.wraps(original)
    def with_perm(self: Any, perm: Any, *args: Any, **kwargs: Any) -> Any:
        refuse_foreign(perm)
        return original(self, perm, *args, **kwargs)

    _replace(ModelBackend, "with_perm", with_perm)


def _install_type_oids() -> None:
    """Oids of extension types differ between databases (django/contrib/postgres/signals.py keeps them by alias)."""
    from django.contrib.postgres import operations, signals

    for name in ("get_hstore_oids", "get_citext_oids"):
        remembered = remembering(getattr(signals, name))
        for module in (signals, operations):  # the latter clears what it has imported by name
            _replace(module, name, remembered)


def _replace(owner: Any, name: str, value: Any) -> None:
    existed, original = name in vars(owner), vars(owner).get(name)
    setattr(owner, name, value)
    _undo.append(lambda: setattr(owner, name, original) if existed else delattr(owner, name))
