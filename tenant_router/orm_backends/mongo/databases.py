"""A tenant's MongoDB database: whose it is, which client reaches it, and what the ORMs keep for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol
from weakref import WeakSet

from pymongo import MongoClient
from pymongo.database import Database

from tenant_router import context as _context
from tenant_router.exceptions import TenantMismatch
from tenant_router.orm_backends.mongo.bound_client import BoundClient
from tenant_router.orm_backends.mongo.clients import Cluster
from tenant_router.orm_backends.mongo.settings import Target
from tenant_router.unit_of_work import Unit


class Owner(Protocol):
    """The manager of a database."""

    @property
    def orm_id(self) -> str:
        """Its key in ``TENANT_ROUTER_ORM_SETTINGS``."""

    def database_of(self, alias: str) -> TenantDatabase:
        """The bound tenant's database for a template alias."""


class OpenDatabase:
    """PyMongo's database, with what the ORMs cache for it: ``collections`` by model class, anything in ``memo``."""

    __slots__ = ("collections", "database", "memo")

    def __init__(self, database: Database) -> None:
        self.database = database
        self.collections: dict[type, Any] = {}
        self.memo: dict[Any, Any] = {}


class TenantDatabase:
    """A tenant's database for one template alias, at one record; a resource of units of work. Opened at first use.

    ``client``: the handle through which PyMongo reaches it, the same one for as long as this lives, whichever client
    of the cluster is open. ``retired``: another record has replaced it.
    """

    __slots__ = (
        "__weakref__",
        "_opened",
        "_owner",
        "_sessions",
        "alias",
        "client",
        "cluster",
        "orm_id",
        "retired",
        "target",
        "tenant_id",
    )

    def __init__(self, tenant_id: str, alias: str, target: Target, cluster: Cluster, owner: Owner) -> None:
        self.tenant_id, self.alias, self.target, self.cluster = tenant_id, alias, target, cluster
        self.orm_id, self._owner = owner.orm_id, owner
        self.retired = False
        self.client = BoundClient._tr_of(self)
        self._sessions: WeakSet[Any] | None = None  # that the application has started; most have none
        self._opened: OpenDatabase | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.alias!r} of {self.tenant_id!r}: {self.target!r}>"

    def open(self) -> OpenDatabase:
        """The open database. Raises what :meth:`use` raises."""
        return self._opened or self._open()

    @property
    def database(self) -> Database:
        """PyMongo's database."""
        return (self._opened or self._open()).database

    def bound_one(self) -> TenantDatabase:
        """The bound tenant's database for the same alias. Raises without a tenant."""
        return self._owner.database_of(self.alias)

    def use(self) -> None:
        """The unit of work here uses this from now on.

        Raises ``TenantMismatch`` where another tenant, or another record of this one, is bound,
        ``TenantContextMissing``, why the bound tenant could not be bound, and ``TooManyConnections``.
        """
        while True:
            found = self.bound_one()
            if found is not self:
                raise self._mismatch(found)
            unit: Unit = _context.bound()[0]
            if self in unit.uses or self.cluster.use(self, unit):
                return

    def has_started(self, session: Any) -> None:
        """The application has started a session."""
        sessions = self._sessions = self._sessions or WeakSet()
        sessions.add(session)

    def refuse(self, what: str) -> TenantMismatch:
        """The error for reaching ``what`` through this database's client."""
        return TenantMismatch(
            f"{what} was to be reached through the client of tenant {self.tenant_id!r}, "
            f"which leads to the tenant's own database alone (alias {self.alias!r} of {self.orm_id!r})"
        )

    # --- what units of work ask of a resource ---

    @property
    def in_atomic_block(self) -> bool:
        """Whether a transaction of a session is open."""
        return any(session.in_transaction for session in [*(self._sessions or ())])

    def left_by(self, unit: Unit) -> None:
        """``unit`` uses this no longer."""
        self.cluster.left()

    def may_rest(self) -> bool:
        """A cursor goes on wherever its tenant is bound again; a transaction is open as long as it is."""
        return not self.in_atomic_block

    def is_abandoned(self) -> None:
        """A unit that used it became garbage."""
        self.cluster.is_abandoned()

    # --- inside ---

    def _open(self) -> OpenDatabase:
        self.use()
        opened = OpenDatabase(Database(self.client, self.target.name))
        if self._opened is None:  # of two threads that come at once either one's will do
            self._opened = opened
        return self._opened

    def _mismatch(self, bound: TenantDatabase) -> TenantMismatch:
        if bound.tenant_id == self.tenant_id:
            what = "the tenant's record has changed since"
        else:
            what = f"tenant {bound.tenant_id!r} is bound here"
        return TenantMismatch(
            f"something of MongoDB that was kept belongs to tenant {self.tenant_id!r} (alias {self.alias!r} of "
            f"{self.orm_id!r}), and {what}: look it up at each use"
        )


class CentralDatabase:
    """The database that the settings give to a reserved alias: everybody's. Its client is no tenant's resource."""

    def __init__(self, target: Target, make: Callable[[Mapping[str, Any]], MongoClient]) -> None:
        self._target, self._make = target, make
        self.reset()

    def reset(self) -> None:
        """Forget the client, which is a parent process's, or is not made yet."""
        self._made: dict[str, MongoClient] = {}

    @property
    def database(self) -> Database:
        """PyMongo's database."""
        client = self._made.get("client")
        if client is None:
            client = self._made.setdefault("client", self._make(self._target.arguments))  # no connection so far
        return client[self._target.name]

    def open(self) -> OpenDatabase:
        """The open database; nothing is kept for it."""
        return OpenDatabase(self.database)

    def close(self) -> None:
        """Close the client."""
        for client in self._made.values():
            client.close()


def same(found: Mapping[str, Any] | None, alias: str, target: Target) -> TenantDatabase | None:
    """What was prepared before for ``alias``, if it leads to ``target`` and still holds."""
    old: TenantDatabase | None = found.get(alias) if found else None
    return old if old is not None and old.target == target and not old.retired else None
