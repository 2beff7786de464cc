"""What Django keeps for the whole process, kept for each database: of each tenant at each revision.

By revision too: a request that still runs on a tenant's old database must not fill what the
tenant's new database is asked for. Where no tenant is bound, an alias says whose database it is.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Iterator, MutableMapping
from typing import Any, cast

from django.db import connections

from tenant_router import context as _context
from tenant_router.orm_backends.django_orm.connections import TenantConnectionHandler
from tenant_router.orm_backends.django_orm.databases import Database
from tenant_router.tenant_context import TenantContext


class PerDatabase(MutableMapping[Any, Any]):
    """A dictionary of its own for each tenant's default database at each revision, and one for no tenant."""

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

    def __contains__(self, key: object) -> bool:
        return key in self._mine()

    def __eq__(self, other: object) -> bool:
        return self._mine() == other

    __hash__ = None  # type: ignore[assignment]

    def _mine(self) -> dict[Any, Any]:
        bound = _context.current()
        if bound is None:
            return self._unbound
        databases = bound.parts["django_orm"]
        key = databases.get(databases.default)
        if key is None:
            return self._unbound  # a test tenant that lives in the templates' own databases
        found = self._by_database.get(key)
        # setdefault keeps one dictionary when two threads come here at once
        return found if found is not None else self._by_database.setdefault(key, {})


class PerAlias(MutableMapping[str, Any]):
    """A dictionary whose keys are aliases: what they lead to is the key, so two names of one database are one."""

    def __init__(self) -> None:
        self._static: dict[str, Any] = {}
        self._by_database: weakref.WeakKeyDictionary[Database, Any] = weakref.WeakKeyDictionary()

    def __getitem__(self, alias: str) -> Any:
        database = database_of(alias)
        return self._static[alias] if database is None else self._by_database[database]

    def __setitem__(self, alias: str, value: Any) -> None:
        database = database_of(alias)
        if database is None:
            self._static[alias] = value
        else:
            self._by_database[database] = value

    def __delitem__(self, alias: str) -> None:
        database = database_of(alias)
        if database is None:
            del self._static[alias]
        else:
            del self._by_database[database]

    def __iter__(self) -> Iterator[str]:
        """The aliases that this unit of work can name: static ones and the bound tenant's own."""
        yield from list(self._static)
        yield from {database.alias for database in self._of_bound() if database in self._by_database}

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def clear(self) -> None:
        """Forget what static aliases and the bound tenant's lead to; everything where nobody is bound."""
        self._static.clear()
        if _context.current() is None:
            self._by_database.clear()
        for database in self._of_bound():
            self._by_database.pop(database, None)

    def _of_bound(self) -> set[Database]:
        bound = _context.current()
        return set() if bound is None else set(bound.parts["django_orm"].values())


def database_of(alias: str) -> Database | None:
    """The tenant's database that ``alias`` leads to now; ``None`` for a static one.

    Raises ``TenantMismatch`` for another tenant's alias while a tenant is bound.
    """
    bound = _context.stack.get() or _context.ambient
    found = bound[-1].parts["django_orm"].get(alias) if bound and bound[-1].__class__ is TenantContext else None
    if found is None and isinstance(connections, TenantConnectionHandler):
        found = connections._manager.database_of(alias)
    return cast("Database | None", found)


def remembering(function: Callable[[str], Any]) -> Any:
    """A function of an alias, such as one under ``functools.lru_cache``, whose answers are kept for each database."""
    ask = getattr(function, "__wrapped__", function)
    kept = PerAlias()

    @functools.wraps(ask)
    def remembered(alias: str) -> Any:
        try:
            return kept[alias]
        except KeyError:
            found = kept[alias] = ask(alias)
            return found

    remembered.cache_clear = kept.clear  # type: ignore[attr-defined]
    return remembered
