"""Instances that Django and packages keep for the whole process: content types, and the site of ``SITE_ID``.

They are values more than rows. ``ContentType.objects.get_for_model(Note)`` in a module's
variable, an ``lru_cache`` or a ``cached_property`` means "the content type of Note" wherever
it is used, so its key is the bound tenant's: ``pk``, comparisons, lookups and assignments. As
a row (saved, deleted, refreshed) it stays its own tenant's.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.db.models.base import ModelState

from tenant_router import context as _context
from tenant_router.orm_backends.django_orm.databases import Database
from tenant_router.orm_backends.django_orm.per_database import database_of

_READ_FROM = "read_from"  # of a KeptState: the template, and the token, of the database that the instance was read from


class _Origin:
    """``db`` of a kept instance's state: the bound tenant's database of the template that it was read from."""

    def __get__(self, state: Any, owner: type) -> Any:
        if state is None:
            return None
        database = database_now(state)
        return state.__dict__.get("db") if database is None else database.alias

    def __set__(self, state: Any, alias: str | None) -> None:
        database = None if alias is None else database_of(alias)
        state.__dict__["db"] = alias if database is None else database.alias
        state.__dict__[_READ_FROM] = None if database is None else (database.template, database.token)


class KeptState(ModelState):
    """The state of an instance that means the same at each tenant."""

    is_kept = True
    db = _Origin()


def database_now(state: Any) -> Database | None:
    """The bound tenant's database, if it is another one than that from which the instance was read."""
    read_from = state.__dict__.get(_READ_FROM)
    bound = _context.stack.get() or _context.ambient
    if read_from is None or not bound:
        return None
    database: Database | None = bound[-1].parts["django_orm"].get(read_from[0])
    return None if database is None or database.token == read_from[1] else database


def keeping(original: Callable[..., None], is_kept: Callable[[Any], bool]) -> Callable[..., None]:
    """Wrap a model's ``__init__``: the instances of which ``is_kept`` says so have a :class:`KeptState`."""

    @wraps(original)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        if is_kept(self) and self._state.__class__ is ModelState:
            self._state.__class__ = KeptState

    return __init__
