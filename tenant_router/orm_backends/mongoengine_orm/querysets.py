"""MongoEngine's query sets, which remember what they have read: each tenant has a memory of its own.

A query set that is not evaluated is a question, and the bound tenant answers it. What it has read (``_result_cache``,
``_has_more``, ``_len`` and the cursor) stays in it as long as the tenant that made it asks. Another tenant, and every
tenant where it was made without one, asks a copy that is kept for its database.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from weakref import WeakKeyDictionary

from mongoengine.queryset.base import BaseQuerySet
from mongoengine.queryset.queryset import QuerySet, QuerySetNoCache

from tenant_router import context as _context
from tenant_router.exceptions import TenantMismatch
from tenant_router.orm_backends.mongo.bound_client import BoundClient
from tenant_router.orm_backends.mongo.databases import TenantDatabase
from tenant_router.orm_backends.mongoengine_orm.aliases import TenantProxy
from tenant_router.orm_backends.mongoengine_orm.documents import DocumentClasses, home_of

_KEPT = "querysets"  # in OpenDatabase.memo


class QuerySetCollection:
    """``BaseQuerySet._collection_obj``: the bound tenant's at each use, as with Django's query sets."""

    def __init__(self, documents: DocumentClasses) -> None:
        self._documents = documents

    def __get__(self, queryset: Any, owner: type) -> Any:
        if queryset is None:
            return self
        collection = queryset.__dict__["_collection_obj"]
        return collection if isinstance(collection, TenantProxy) else self._documents.current(collection)

    def __set__(self, queryset: Any, collection: Any) -> None:
        queryset.__dict__["_collection_obj"] = collection


class QuerySetCursor:
    """``BaseQuerySet._cursor_obj``: ``None`` where it is another tenant's, as in a copy that one has made."""

    def __get__(self, queryset: Any, owner: type) -> Any:
        if queryset is None:
            return self
        cursor = queryset.__dict__["_cursor_obj"]
        collection = getattr(cursor, "_Cursor__collection", None)  # asked for each document: no calls
        if collection is None:
            return cursor
        client = collection._Collection__database._Database__client
        if type(client) is not BoundClient:
            return cursor
        home, bound = client._tr_home, _context.stack.get() or _context.ambient
        return cursor if bound and bound[-1].parts[home.orm_id][home.alias] is home else None

    def __set__(self, queryset: Any, cursor: Any) -> None:
        queryset.__dict__["_cursor_obj"] = cursor


def _home(queryset: Any) -> TenantDatabase | None:
    """The bound tenant's database that a query set asks; ``None`` if it is no tenant's. Raises without a tenant."""
    collection = queryset.__dict__["_collection_obj"]
    if isinstance(collection, TenantProxy):
        return home_of(collection._tr_resolve())
    home = home_of(collection)
    return home and home.bound_one()


def _own(queryset: Any) -> Any:
    """The query set that the bound tenant asks: ``queryset`` itself, if it made it."""
    now, collection = _home(queryset), queryset.__dict__["_collection_obj"]
    if now is None or (not isinstance(collection, TenantProxy) and home_of(collection) is now):
        return queryset
    kept: WeakKeyDictionary[Any, Any] = now.open().memo.setdefault(_KEPT, WeakKeyDictionary())
    found = kept.get(queryset)
    if found is None:
        found = queryset.clone()
        found._collection_obj = _collection_now(queryset)
        found = kept.setdefault(queryset, found)
    return found


def _collection_now(queryset: Any) -> Any:
    collection = queryset._collection_obj
    return collection._tr_resolve() if isinstance(collection, TenantProxy) else collection


def _of_own(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
    def ask(queryset: Any, *args: Any, **kwargs: Any) -> Any:
        return original(_own(queryset), *args, **kwargs)

    ask.__name__ = name
    return ask


def _iter_results(original: Callable[[Any], Iterator[Any]]) -> Callable[[Any], Iterator[Any]]:
    def iter_results(queryset: Any) -> Iterator[Any]:
        home = _home(queryset)
        return original(queryset) if home is None else _Steps(home, original(_own(queryset)))

    return iter_results


class _Steps:
    """``documents``, for the tenant that began to read them and for nobody else.

    No generator: that would end with the first step that is refused, and its owner would miss the rest.
    """

    __slots__ = ("_check", "_documents")

    def __init__(self, home: TenantDatabase, documents: Iterator[Any]) -> None:
        self._check, self._documents = home.client._tr_check, documents

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        self._check()
        return next(self._documents)


def _next(original: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def step(queryset: Any) -> Any:
        if queryset._cursor_obj is not None:  # the bound tenant is reading it
            return original(queryset)
        own = _own(queryset)
        if own is not queryset and queryset.__dict__["_cursor_obj"] is not None:
            raise TenantMismatch(
                "this query set is being read by another tenant: begin with iter(), or with a copy (.all())"
            )
        return original(own)

    return step


def replacements(documents: DocumentClasses) -> Iterator[tuple[type, str, Any]]:
    """What replaces what in MongoEngine's classes."""
    yield BaseQuerySet, "_collection_obj", QuerySetCollection(documents)
    yield BaseQuerySet, "_cursor_obj", QuerySetCursor()
    yield BaseQuerySet, "__next__", _next(BaseQuerySet.__next__)
    yield QuerySet, "_iter_results", _iter_results(QuerySet._iter_results)
    asking: dict[type, tuple[str, ...]] = {
        BaseQuerySet: ("rewind", "explain"),
        QuerySet: ("__iter__", "__len__", "__repr__", "_populate_cache", "count", "no_cache"),
        QuerySetNoCache: ("__iter__", "__repr__"),
    }
    for owner, names in asking.items():
        for name in names:
            yield owner, name, _of_own(name, getattr(owner, name))
