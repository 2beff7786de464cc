"""Whose a queryset's rows and an iteration are, and what ``using("default")`` means.

A queryset that was not evaluated is a question and belongs to nobody: the tenant that is
bound when it is evaluated answers it, as views and forms with a ``queryset`` attribute want
it. What it has read belongs to the tenant it was read from.
"""

from __future__ import annotations

import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from functools import wraps
from typing import Any

from django.db import connections
from django.db.models import Prefetch, QuerySet
from django.db.models.query import RawQuerySet
from django.db.models.sql import Query

from tenant_router import context as _context
from tenant_router.exceptions import TenantMismatch
from tenant_router.orm_backends.django_orm.ownership import is_reserved, tenant_of
from tenant_router.tenant_context import DeniedContext, PlainContext, TenantContext

_ROWS = "_result_cache"
_OWNER = "_tenant_router_owner"  # the id of the tenant from which the rows were read
_SHARED = "_tenant_router_rows"  # of a queryset that was made while no tenant was bound: each tenant's rows

Replace = Callable[[Any, str, Any], None]


def install(replace: Replace) -> None:
    """Guard querysets and prefetches; ``replace`` sets an attribute and knows how to undo it."""
    for made in (QuerySet, RawQuerySet):
        replace(made, _ROWS, Rows())
    replace(Query, "_db", SubqueryAlias())
    replace(QuerySet, "__getstate__", _state_of_one_tenant(QuerySet.__getstate__))
    replace(QuerySet, "_iterator", _iterating_within(vars(QuerySet)["_iterator"]))
    replace(RawQuerySet, "iterator", _iterating_within(_asking_alone(RawQuerySet.iterator)))
    replace(QuerySet, "aiterator", _aiterating_within(QuerySet.aiterator))
    replace(Prefetch, "queryset", Copied())


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
            return state[_SHARED].get(_source(bound[-1]))
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
                state[_SHARED] = RowsOfEach()
        elif bound and _SHARED in state:
            state[_SHARED][_source(bound[-1])] = rows
            state["_prefetch_done"] = False  # for another tenant
        else:
            state[_ROWS] = rows
            owner = bound[-1].id if bound else tenant_of(queryset.db)
            if owner is not None:
                state.pop(_SHARED, None)
                state[_OWNER] = owner


class RowsOfEach(weakref.WeakKeyDictionary[Any, Any]):
    """The rows that a queryset has read from each tenant: they go with the tenant's configuration.

    After a change or a deletion the databases that they were read from are nobody's, and so are
    they. A copy of the queryset holds none.
    """

    def __deepcopy__(self, memo: Any) -> RowsOfEach:
        return RowsOfEach()


class SubqueryAlias:
    """``Query._db`` of a subquery (``QuerySet.resolve_expression``): the alias that ``using()`` has named.

    ``In.process_rhs`` (django/db/models/lookups.py) compares it with the alias of the outer
    query's connection. A template's alias means the bound tenant's connection on both sides.
    """

    def __get__(self, query: Any, owner: type) -> Any:
        if query is None:
            return self
        alias = query.__dict__.get("_db")
        return alias if alias is None or _context.current() is None else connections[alias].alias

    def __set__(self, query: Any, alias: str | None) -> None:
        query.__dict__["_db"] = alias


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


def _source(context: TenantContext) -> Any:
    """What the rows read under ``context`` are kept with; under a denied one they can be central rows only."""
    return DeniedContext if isinstance(context, DeniedContext) else context.parts["django_orm"]


def _is_plain() -> bool:
    return isinstance(_context.current(), PlainContext)


def _refuse_rows(queryset: Any, owner: str, bound: str | None) -> None:
    if not is_reserved(queryset.db):  # what came from a reserved database is everybody's
        used = f"tenant {bound!r} is bound" if bound else "no tenant is bound"
        raise TenantMismatch(
            f"rows of {queryset.model.__qualname__} that were read from tenant {owner!r} are used while {used}: "
            "evaluate a queryset of its own here (.all() makes one)"
        )


def _refuse_elsewhere(queryset: Any, began: TenantContext | None) -> None:
    """An iteration reads on from where it began: it is continued there, or not at all."""
    now = _context.current()
    if began is not None and (now is None or now.id != began.id):
        _refuse_rows(queryset, began.id, now.id if now else None)


def _state_of_one_tenant(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def __getstate__(self: Any) -> Any:
        state = original(self)
        if state.pop(_SHARED, None) is not None and self._result_cache is not None:
            owner = _context.current()
            state |= {_ROWS: self._result_cache, **({_OWNER: owner.id} if owner else {})}
        return state

    return __getstate__


def _asking_alone(original: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
    @wraps(original)
    def iterator(self: Any) -> Iterator[Any]:
        """A ``RawQuery`` keeps the cursor of who has asked last, and the columns of who has asked first."""
        return original(self.using(self.db) if _SHARED in self.__dict__ else self)

    return iterator


def _iterating_within(original: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
    @wraps(original)
    def _iterator(self: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
        began = _context.current()
        for row in original(self, *args, **kwargs):
            yield row
            if _context.current() is not began:
                _refuse_elsewhere(self, began)

    return _iterator


def _aiterating_within(original: Callable[..., AsyncIterator[Any]]) -> Callable[..., AsyncIterator[Any]]:
    @wraps(original)
    async def aiterator(self: Any, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        began = _context.current()
        async with aclosing(original(self, *args, **kwargs)) as rows:  # type: ignore[type-var]
            async for row in rows:
                yield row
                if _context.current() is not began:
                    _refuse_elsewhere(self, began)

    return aiterator
