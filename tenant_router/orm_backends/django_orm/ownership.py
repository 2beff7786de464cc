"""Whose an instance is: using it under another tenant is refused. No check makes a query."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.db import connections
from django.db.models import Model

from tenant_router import context as _context
from tenant_router.exceptions import TenantMismatch
from tenant_router.managers import tenant_context_manager
from tenant_router.orm_backends.django_orm.connections import TenantConnectionHandler
from tenant_router.tenant_context import DeniedContext


def refuse_foreign(instance: Any, using: str | None = None, kept: bool = False) -> None:
    """Raise ``TenantMismatch`` if ``instance`` is a model's and was loaded from another tenant than the bound one.

    ``using``: the alias that is going to be used; where nothing is bound, it says whose database
    it is. ``kept``: only its key is used, which value objects (see ``kept``) have at each tenant.
    """
    if not isinstance(instance, Model):
        return
    origin = instance._state.__dict__.get("db")
    if origin is None or (kept and getattr(instance._state, "is_kept", False)):
        return
    bound = _context.stack.get() or _context.ambient
    if not bound:
        _refuse_by_alias(instance, origin, using)
        return
    context = bound[-1]
    if isinstance(context, DeniedContext) or origin in context.parts["django_orm"]:
        return
    if not is_static(origin):
        raise TenantMismatch(
            f"an instance of {type(instance).__qualname__} from {origin!r} is used while tenant {context.id!r} is bound"
        )


def refuse_all_foreign(values: Iterable[Any], using: str | None = None) -> None:
    """:func:`refuse_foreign` for each of ``values`` of which the key alone is used, whatever else is among them."""
    for value in values:
        if isinstance(value, Model):
            refuse_foreign(value, using, kept=True)


def tenant_of(origin: str | None) -> str | None:
    """The id of the tenant from which what is labelled ``origin`` was loaded; ``None`` for what is everybody's."""
    return None if origin is None or is_static(origin) else tenant_context_manager.owner_of(origin)


def own_aliases() -> Any:
    """The aliases of the bound tenant's databases; none where nobody is bound, or a denied tenant."""
    bound = _context.stack.get() or _context.ambient
    return bound[-1].parts["django_orm"] if bound and not isinstance(bound[-1], DeniedContext) else ()


def own_alias(alias: str) -> str:
    """The bound tenant's own alias for a template's; any other alias as it is."""
    bound = _context.stack.get() or _context.ambient
    if not bound or isinstance(bound[-1], DeniedContext):
        return alias
    database = bound[-1].parts["django_orm"].get(alias)
    return alias if database is None else str(database.alias)


def is_static(alias: str) -> bool:
    """Whether an alias is reserved, or a template's in a test run whose tenant lives there; no tenant has its name."""
    return is_reserved(alias) or alias in connections._manager.templates  # type: ignore[attr-defined]


def is_reserved(alias: str) -> bool:
    """Whether what is found by ``alias`` is everybody's."""
    return not isinstance(connections, TenantConnectionHandler) or alias in connections._manager.reserved_aliases


def _refuse_by_alias(instance: Model, origin: str, using: str | None) -> None:
    """Where nobody is bound an alias says whose database is used: an instance stays with its tenant."""
    if using is None or using == origin:
        return
    owner, other = tenant_of(origin), tenant_of(using)
    if owner is not None and other is not None and owner != other:
        raise TenantMismatch(
            f"an instance of {type(instance).__qualname__} from {origin!r} is used with the database {using!r}"
        )
