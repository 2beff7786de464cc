"""The pool of a process's Elasticsearch clients: at most ``MAX_OPEN_CLIENTS`` are open."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable

from tenant_router.exceptions import TooManyConnections
from tenant_router.orm_backends.es_orm.settings import Cluster
from tenant_router.orm_backends.es_orm.shared_client import SharedClient


class ClientPool:
    """All shared clients of a process; at most ``limit`` of them are open."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        # In a test run, called with the prefix, method and path of each request before it is sent; raises to refuse it.
        self.gate: Callable[[str, str, str], None] | None = None
        self._clients: weakref.WeakValueDictionary[str, SharedClient] = weakref.WeakValueDictionary()
        self._lock, self._admitting = threading.RLock(), threading.RLock()

    def get(self, cluster: Cluster) -> SharedClient:
        """The client of a cluster; nothing is opened."""
        key = cluster.key
        with self._lock:
            found = self._clients.get(key)
            if found is None:
                found = self._clients[key] = SharedClient(cluster, self)
            return found

    def reset_after_fork(self) -> None:
        """In a forked child: every client is made anew."""
        self._lock, self._admitting = threading.RLock(), threading.RLock()
        for client in list(self._clients.values()):
            client.reset_after_fork()

    def close(self) -> None:
        """Close what no request uses."""
        for client in self._all():
            client.close_if(unused=False)

    def open(self) -> list[SharedClient]:
        """The clients that hold connections."""
        return [client for client in self._all() if client.is_open]

    def admit(self, client: SharedClient, patience: float) -> None:
        """Begin a request of ``client``; the least recently used of the idle ones is closed if there is no room for it.

        Raises ``TooManyConnections`` when all stay in use for ``patience`` seconds.
        """
        deadline = time.monotonic() + patience
        while not self._admit_now(client):
            if time.monotonic() >= deadline:
                raise TooManyConnections(
                    f"all {self.limit} Elasticsearch clients of this process are in use; "
                    "OPTIONS['MAX_OPEN_CLIENTS'] of 'es_orm' allows more"
                )
            time.sleep(0.01)

    def _admit_now(self, client: SharedClient) -> bool:
        with self._admitting:  # until it counts as open: else several would find room for one
            if not client.is_open and not self._make_room():
                return False
            client.begin()
            return True

    def _make_room(self) -> bool:
        others = self.open()
        if len(others) < self.limit:
            return True
        return any(one.close_if(unused=False) for one in sorted(others, key=lambda one: one.last_used))

    def _all(self) -> list[SharedClient]:
        with self._lock:
            return list(self._clients.values())
