"""``DjangoOrmRouter``: sends models to the bound tenant's database.

It is stateless and goes below the project's own routers in ``DATABASE_ROUTERS``.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from django.db import connections
from django.utils.module_loading import import_string

from tenant_router import context as _context
from tenant_router.exceptions import ConfigurationError, TenantMismatch
from tenant_router.orm_backends.django_orm.connections import TenantConnectionHandler
from tenant_router.orm_backends.django_orm.resolving import Owner


class DjangoOrmRouter:
    """Routes to ``<tenant id>_<template alias>``, and to the template's alias while no tenant is bound.

    Module code runs unbound, as in ``@transaction.atomic(using=router.db_for_write(User))``: the
    template's alias is right for every tenant. It is the connection that refuses where none is bound.
    """

    takes_tenant_aliases = True  # the project's other routers are asked about the template's alias

    def db_for_read(self, model: Any, instance: Any = None, **hints: Any) -> str | None:
        """The bound tenant's alias.

        A hinted ``instance`` that came from a reserved database stays there; one that came
        from another tenant raises ``TenantMismatch``.
        """
        bound = _context.stack.get() or _context.ambient
        if bound:
            default: str = bound[-1].parts["django_orm"].default
            if instance is None or instance._state.db is None or instance._state.db == default:
                return default or None
        origin = instance._state.db if instance is not None else None
        return _by_origin(origin, model)

    db_for_write = db_for_read

    def allow_relation(self, one: Any, other: Any, **hints: Any) -> bool:
        """Only within one database."""
        return bool(one._state.db == other._state.db)

    def allow_migrate(self, db: str, app_label: str, model_name: str | None = None, **hints: Any) -> bool | None:
        """What ``MIGRATE_STRATEGY`` says of a tenant's database, else yes; no opinion on reserved aliases.

        No for a template alias while no tenant is bound: there is no database behind it.
        """
        manager = _manager()
        if db in manager.reserved_aliases:
            return None
        if db in manager.templates and _context.current() is None:
            return False
        strategy = manager.options.get("ROUTER_OPTS", {}).get("MIGRATE_STRATEGY")
        if strategy is None:
            return True
        answer: bool | None = _callable(strategy)(self, db, app_label, model_name=model_name, **hints)
        return answer


def _manager() -> Owner:
    if not isinstance(connections, TenantConnectionHandler):
        raise ConfigurationError(
            "DATABASE_ROUTERS names DjangoOrmRouter, but tenant_router is not installed: "
            "add 'tenant_router' as the first of INSTALLED_APPS"
        )
    return connections._manager


def _by_origin(origin: str | None, model: Any) -> str | None:
    """Where an instance of ``origin`` stays; ``None`` asks Django to use its own rule, the origin."""
    manager = _manager()
    bound = _context.current()
    if origin is None and not manager.templates:
        return None  # all aliases are reserved: the project's own routers decide
    if origin is None:
        return manager.default_template
    if origin in manager.reserved_aliases or origin in manager.templates:
        return origin
    if bound is not None and origin not in bound.parts[manager.orm_id]:
        raise TenantMismatch(
            f"an instance of {model.__qualname__} from {origin!r} is used while tenant {bound.id!r} is bound"
        )
    return origin


@cache
def _callable(path: str) -> Any:
    try:
        return import_string(path)
    except ImportError as error:
        raise ConfigurationError(f"ROUTER_OPTS['MIGRATE_STRATEGY']: cannot import {path!r}: {error}") from error
