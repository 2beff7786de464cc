"""Whose an instance, a queryset's rows and an open cursor are: using them under another tenant is refused.

A queryset that was not evaluated is a question and belongs to nobody: the tenant that is
bound when it is evaluated answers it, as views and forms with a ``queryset`` attribute want
it. What it has read belongs to the tenant it was read from. No guard makes a query.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

from django.db import connections
from django.db.models import Model, Prefetch, QuerySet
from django.db.models.fields import related_lookups
from django.db.models.fields.mixins import NOT_PROVIDED, FieldCacheMixin
from django.db.models.query import RawQuerySet

from tenant_router import context as _context
from tenant_router.exceptions import TenantContextMissing, TenantMismatch
from tenant_router.managers import tenant_context_manager
from tenant_router.orm_backends.django_orm.connections import TenantConnectionHandler

_ROWS = "_result_cache"
_OWNER = "_tenant_router_owner"  # the id of the tenant from which the rows were read
_SHARED = "_tenant_router_rows"  # of a queryset that was made while no tenant was bound: each tenant's rows

Replace = Callable[[Any, str, Any], None]


def install(replace: Replace) -> None:
    """Guard instances, querysets and prefetches; ``replace`` sets an attribute and knows how to undo it."""
    for made in (QuerySet, RawQuerySet):
        replace(made, _ROWS, Rows())
    replace(QuerySet, "__getstate__", _state_of_one_tenant(QuerySet.__getstate__))
    replace(QuerySet, "_iterator", _iterating_within(vars(QuerySet)["_iterator"]))
    # All of save(), bulk_create() and bulk_update() come through the first; with using= none of them asks a router.
    for name in ("_prepare_related_fields_for_save", "delete", "refresh_from_db"):
        replace(Model, name, _of_own_tenant(getattr(Model, name)))
    replace(FieldCacheMixin, "get_cached_value", _memoised(FieldCacheMixin.get_cached_value))
    replace(related_lookups, "get_normalized_value", _of_own_tenant(related_lookups.get_normalized_value))
    replace(Prefetch, "queryset", Copied())


def refuse_foreign(instance: Any) -> None:
    """Raise ``TenantMismatch`` if ``instance`` is a model's and was loaded from another tenant than the bound one."""
    bound = _context.stack.get() or _context.ambient
    if not bound or not isinstance(instance, Model):
        return
    origin, context = instance._state.__dict__.get("db"), bound[-1]
    if origin is None or isinstance(context, _context.DeniedContext) or origin in context.parts["django_orm"]:
        return
    if not _is_static(origin):
        raise TenantMismatch(
            f"an instance of {type(instance).__qualname__} from {origin!r} is used "
            f"while tenant {bound[-1].id!r} is bound"
        )


class Rows:
    """``QuerySet._result_cache`` (django/db/models/query.py): what was read, and from which tenant.

    A queryset that was made while no tenant was bound, as in a module, is everybody's: it
    keeps each tenant's rows apart.
    """

    def __get__(self, queryset: Any, owner: type) -> Any:
        if queryset is None:
            return self
        state = queryset.__dict__
        bound = _context.stack.get() or _context.ambient
        if not bound:
            return state[_ROWS]
        if _SHARED in state:
            return state[_SHARED].get(bound[-1].id)
        rows = state[_ROWS]
        if rows is not None and state.get(_OWNER, bound[-1].id) != bound[-1].id:
            _refuse_rows(queryset, state[_OWNER], bound[-1].id)
        return rows

    def __set__(self, queryset: Any, rows: Any) -> None:
        state = queryset.__dict__
        bound = _context.stack.get() or _context.ambient
        if rows is None:
            state[_ROWS] = None
            if not bound:
                state[_SHARED] = {}
        elif bound and _SHARED in state:
            state[_SHARED][bound[-1].id] = rows
            state["_prefetch_done"] = False  # for another tenant
        else:
            state[_ROWS] = rows
            owner = bound[-1].id if bound else _tenant_read(queryset)
            if owner is not None:
                state.pop(_SHARED, None)
                state[_OWNER] = owner


class Copied:
    """``Prefetch.queryset`` (django/db/models/query.py): a copy for each use.

    A ``Prefetch`` of a class is every thread's, and Django notes in its queryset for which
    instance it is used: a router would be asked about another thread's tenant.
    """

    def __get__(self, prefetch: Any, owner: type) -> Any:
        if prefetch is None:
            return self
        queryset = prefetch.__dict__["queryset"]
        return queryset if queryset is None or _is_plain() else queryset.all()

    def __set__(self, prefetch: Any, queryset: Any) -> None:
        prefetch.__dict__["queryset"] = queryset


def _is_plain() -> bool:
    return isinstance(_context.current(), _context.PlainContext)


def _refuse_rows(queryset: Any, owner: str, bound: str) -> None:
    if not _is_reserved(queryset.db):  # what came from a reserved database is everybody's
        raise TenantMismatch(
            f"rows of {queryset.model.__qualname__} that were read from tenant {owner!r} are used while tenant "
            f"{bound!r} is bound: evaluate a queryset of its own here (.all() makes one)"
        )


def _tenant_read(queryset: Any) -> str | None:
    """Whose database was read, by an explicit alias or an instance's, while nobody was bound."""
    try:
        alias = queryset.db
    except TenantContextMissing:
        return None
    return None if _is_reserved(alias) else tenant_context_manager.owner_of(alias)


def _is_static(alias: str) -> bool:
    """Whether an alias is reserved, or a template's in a test run whose tenant lives there; no tenant has its name."""
    return _is_reserved(alias) or alias in connections._manager.templates  # type: ignore[attr-defined]


def _is_reserved(alias: str) -> bool:
    return not isinstance(connections, TenantConnectionHandler) or alias in connections._manager.reserved_aliases


def _state_of_one_tenant(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def __getstate__(self: Any) -> Any:
        state = original(self)
        if state.pop(_SHARED, None) is not None and self._result_cache is not None:
            owner = _context.current()
            state |= {_ROWS: self._result_cache, **({_OWNER: owner.id} if owner else {})}
        return state

    return __getstate__


def _iterating_within(original: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
    @wraps(original)
    def _iterator(self: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
        began = _context.current()
        for row in original(self, *args, **kwargs):
            yield row
            now = _context.current()
            if now is not began and began is not None and now is not None and now.id != began.id:
                _refuse_rows(self, began.id, now.id)

    return _iterator


def _of_own_tenant(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def guarded(instance: Any, *args: Any, **kwargs: Any) -> Any:
        refuse_foreign(instance)
        return original(instance, *args, **kwargs)

    return guarded


def _memoised(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def get_cached_value(self: Any, instance: Any, default: Any = NOT_PROVIDED) -> Any:
        refuse_foreign(instance)
        return original(self, instance, default)

    return get_cached_value
