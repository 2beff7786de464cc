"""What a context carries for the Django ORM: each database of a tenant at one revision."""

from __future__ import annotations

import os
from itertools import count
from typing import Any


class Database:
    """One tenant's database at one revision: its alias, its frozen settings, its open connections.

    ``token`` tells it from every other one, also in other processes. ``incarnation``: what a new connection must find
    in it; empty where it is not stamped.
    """

    __slots__ = (
        "__weakref__",
        "alias",
        "borrowers",
        "incarnation",
        "pool",
        "pools",
        "retired",
        "settings",
        "template",
        "tenant_id",
        "token",
        "type_infos",
    )

    def __init__(self, tenant_id: str, template: str, alias: str, settings: dict[str, Any]) -> None:
        self.tenant_id, self.template, self.alias, self.settings = tenant_id, template, alias, settings
        self.borrowers: set[Any] = set()  # wrappers with a connection that is open; under the budget's lock
        self.pool: Any = None  # a pool.ConnectionPool
        self.pools: dict[str, Any] = {}  # of engines with pools of their own, which keep them on a class, by alias
        self.type_infos: dict[str, dict[str, Any]] = {}  # what the PostGIS backend would keep on its class, by alias
        self.retired = False
        self.incarnation = ""
        self.token = _tokens.new()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.alias!r}{' retired' if self.retired else ''}>"

    def keep_type_infos(self, wrapper: Any) -> None:
        """Have the oids of PostGIS types (backends/postgis/base.py, ``_type_infos``) kept with this database."""
        for name in getattr(wrapper, "_type_infos", ()):
            self.type_infos.setdefault(name, {})
            wrapper._type_infos = self.type_infos

    def close_pools(self) -> None:
        """Close the pools. A connection that is out comes back to a closed pool, which closes it."""
        while self.pools:
            self.pools.popitem()[1].close()
        if self.pool is not None:
            self.pool.close()

    def reset_after_fork(self) -> None:
        """What is open is the parent's."""
        self.pools.clear()
        self.borrowers.clear()
        self.pool = None


class _Tokens:
    """Words that no other process gives: a burst of changes makes thousands, and the system is asked once for all."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """A forked child is another process."""
        self._process, self._numbers = os.urandom(8).hex(), count()

    def new(self) -> str:
        """One that was not given before."""
        return f"{self._process}-{next(self._numbers)}"


_tokens = _Tokens()
os.register_at_fork(after_in_child=_tokens.renew)


class Databases(dict[str, Database]):
    """What a context carries for the Django ORM: each database by its template's and by its own alias."""

    default: str  # the connection alias that the router answers
    plain = False
    __hash__ = object.__hash__  # type: ignore[assignment]  # what was read from them can be kept with them, weakly


class PlainDatabases(Databases):
    """Of a test tenant that lives in the databases of the templates themselves: Django's own handling applies."""

    plain = True

    def __init__(self, default: str) -> None:
        super().__init__()
        self.default = default
