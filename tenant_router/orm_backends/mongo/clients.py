"""MongoDB clients: one for each cluster with its credentials and options, shared by all tenants on it.

A client is opened at first use. It is closed when nothing refers to it any more: no current
tenant, no unit of work that is pinned to an older revision, no cursor that is being read.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from time import monotonic
from typing import Any
from weakref import WeakSet, WeakValueDictionary

from pymongo.database import Database

from tenant_router.orm_backends.mongo.client_closer import ClientCloser, TenantClient
from tenant_router.orm_backends.mongo.settings import Target


class Origin:
    """Which tenant's database a collection came from: one object per template alias and record, compared by ``is``."""

    __slots__ = ("alias",)

    def __init__(self, alias: str) -> None:
        self.alias = alias


class BoundDatabase(Database):  # type: ignore[misc]
    """PyMongo's ``Database``, of a tenant; it knows its :class:`Origin`."""

    def __init__(self, client: TenantClient, name: str, origin: Origin) -> None:
        super().__init__(client, name)
        self._tr_origin = origin


class OpenDatabase:
    """An open database, with what the ORMs cache for it: ``collections`` by model class, anything else in ``memo``."""

    __slots__ = ("collections", "database", "memo")

    def __init__(self, database: BoundDatabase) -> None:
        self.database = database
        self.collections: dict[type, Any] = {}
        self.memo: dict[Any, Any] = {}


class TenantDatabase:
    """A tenant's database for one template alias: its name and its cluster. Opened at first use."""

    __slots__ = ("__weakref__", "_opened", "cluster", "origin", "target")

    def __init__(self, alias: str, target: Target, cluster: Cluster) -> None:
        self.origin, self.target, self.cluster = Origin(alias), target, cluster
        self._opened: OpenDatabase | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.origin.alias!r}: {self.target!r}>"

    def open(self) -> OpenDatabase:
        """The open database."""
        self.cluster.last_used = monotonic()
        return self._opened or self.cluster.open(self)

    @property
    def database(self) -> BoundDatabase:
        """PyMongo's database."""
        self.cluster.last_used = monotonic()
        return (self._opened or self.cluster.open(self)).database

    def forget(self) -> None:
        """Let go of the client; it is opened again if this is used once more."""
        self._opened = None

    def renew(self) -> None:
        """Let go of the client, and of whatever came of it."""
        self._opened, self.origin = None, Origin(self.origin.alias)


class Cluster:
    """A MongoDB cluster with one set of credentials and options, and its client while it is in use."""

    def __init__(self, target: Target, clients: Clients) -> None:
        self._arguments, self._clients = target.arguments, clients
        self.last_used = 0.0
        self._users: WeakSet[TenantDatabase] = WeakSet()
        self.reset()

    def reset(self) -> None:
        """Forget the client: nobody holds a lock of this (in a forked child)."""
        self._lock = threading.Lock()
        self.client: TenantClient | None = None
        for user in list(self._users):
            user.renew()

    def open(self, user: TenantDatabase) -> OpenDatabase:
        """Open ``user``, with a new client if there is none."""
        with self._lock:
            if self.client is None:
                self.client = self._clients.make(self._arguments)
            opened = OpenDatabase(BoundDatabase(self.client, user.target.name, user.origin))
            user._opened = opened
            self._users.add(user)
        self._clients.make_room()
        return opened

    def drop(self) -> None:
        """Let go of the client. Who is using it goes on, and it is closed when the last of them is done."""
        with self._lock:
            self.client = None
            for user in list(self._users):
                user.forget()


class Clients:
    """All clients of one manager, at most ``limit`` of them held open while nobody is using them."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.kind: Callable[..., TenantClient] = TenantClient  # a test run has one of its own
        self._clusters: WeakValueDictionary[tuple[Any, ...], Cluster] = WeakValueDictionary()
        self.reset_after_fork()

    def reset_after_fork(self) -> None:
        """Drop the parent's clients without a word to the servers."""
        self._lock = threading.Lock()
        self._closer = ClientCloser()
        self._live: WeakValueDictionary[int, TenantClient] = WeakValueDictionary()
        for cluster in list(self._clusters.values()):
            cluster.reset()

    def cluster(self, target: Target) -> Cluster:
        """The cluster of ``target``; equal ones are the same object."""
        with self._lock:
            found = self._clusters.get(target.cluster_key)
            if found is None:
                found = self._clusters[target.cluster_key] = Cluster(target, self)
            return found

    def make(self, arguments: Any) -> TenantClient:
        """A new client. No connection yet; only ``mongodb+srv`` asks the DNS."""
        client = self.kind(connect=False, **arguments)
        client._tr_pid, client._tr_close = os.getpid(), self._closer.start()
        self._live[id(client)] = client
        return client

    def make_room(self) -> None:
        """Drop the least recently used clients beyond the limit."""
        with self._lock:
            holding = [cluster for cluster in self._clusters.values() if cluster.client is not None]
        for cluster in sorted(holding, key=lambda cluster: cluster.last_used)[: max(0, len(holding) - self._limit)]:
            cluster.drop()

    def live(self) -> list[TenantClient]:
        """All clients, those included that are dropped and still in use."""
        return list(self._live.values())

    def open_count(self) -> int:
        """How many clients there are, those included that are dropped and still in use."""
        return len(self._live)

    def close(self) -> None:
        """Drop all clients."""
        with self._lock:
            clusters = list(self._clusters.values())
        for cluster in clusters:
            cluster.drop()
        self._closer.stop()
