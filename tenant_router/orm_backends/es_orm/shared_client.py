"""The client of one cluster with its credentials and options, which all tenants on it share.

A client is made at its first request, closed when the last tenant that had it is gone from the
registry and from every unit of work, and made again should somebody still ask for it. So it can
be closed at any time that no request runs on it: also to make room for another one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import cached_property
from typing import Any, Protocol

from elastic_transport import SerializerCollection
from elasticsearch import AsyncElasticsearch, ConnectionTimeout, Elasticsearch
from elasticsearch.serializer import DEFAULT_SERIALIZERS

from tenant_router.exceptions import ConfigurationError
from tenant_router.orm_backends.es_orm.async_clients import AsyncClients
from tenant_router.orm_backends.es_orm.dsl import serializer
from tenant_router.orm_backends.es_orm.settings import Cluster

WAIT_FOR_CLIENT = 2.0  # seconds that a place among the open clients is waited for


class Admission(Protocol):
    """Who decides how many clients are open: a ``ClientPool``."""

    gate: Callable[[str, str, str], None] | None

    def admit(self, client: SharedClient, patience: float) -> None:
        """Let a request of ``client`` begin. Raises ``TooManyConnections`` after ``patience`` seconds."""


class SharedClient:
    """The client of one cluster; ``users`` counts the :class:`TenantClients` that use it."""

    def __init__(self, cluster: Cluster, pool: Admission) -> None:
        self.cluster, self.pool = cluster, pool
        self.users = 0
        self.last_used = 0.0  # time.monotonic()
        self._inherited: list[Any] = []
        self._begin()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.cluster!r}{' open' if self.is_open else ''}>"

    def reset_after_fork(self) -> None:
        """Leave alone what the parent opened: collecting it would complain that it was never closed."""
        self._inherited += [self._client, self._async]
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.RLock()  # re-entrant: a TenantClients may be collected, and released, while it is held
        self._client: Elasticsearch | None = None
        self._async = AsyncClients(self._make_async)
        self._running = 0
        nodes = len(self.cluster.hosts)
        self._free_connections = threading.BoundedSemaphore(
            self.cluster.options.get("connections_per_node", 10) * nodes
        )

    @property
    def is_open(self) -> bool:
        """Whether it holds connections, or is about to."""
        return self._running > 0 or self._client is not None or bool(self._async)

    @cached_property
    def serializers(self) -> SerializerCollection:
        """What bodies are written with, by MIME type."""
        given = self.cluster.options.get("serializers")
        own = {"application/json": self.cluster.options.get("serializer") or serializer} if given is None else given
        return SerializerCollection({**DEFAULT_SERIALIZERS, **own})

    def dumps(self, body: Any) -> bytes:
        """``body`` as JSON."""
        return self.serializers.dumps(body, mimetype="application/json")

    @contextmanager
    def sync(self) -> Iterator[Elasticsearch]:
        """The client, for the time of one request."""
        # Else a thread would wait without bound for one of the connections, while a server hangs.
        patience = float(self.cluster.options["request_timeout"])
        if not self._free_connections.acquire(timeout=patience):
            raise ConnectionTimeout(f"all connections to {self.cluster!r} were in use for {patience} s")
        try:
            with self._one_request(WAIT_FOR_CLIENT):
                yield self._opened()
        finally:
            self._free_connections.release()

    @asynccontextmanager
    async def async_client(self) -> AsyncIterator[AsyncElasticsearch]:
        """The client of the running event loop, for the time of one request."""
        with self._one_request(0.0):  # the loop cannot stand still for a place
            yield await self._async.of_running_loop()

    def acquire(self) -> None:
        """One user more."""
        with self._lock:
            self.users += 1

    def release(self) -> None:
        """One user less; the last one closes it."""
        with self._lock:
            self.users -= 1
        self.close_if(unused=True)

    def close_if(self, unused: bool) -> bool:
        """Close it unless a request is running, or, with ``unused``, somebody uses it; whether it is closed."""
        with self._lock:
            if self._running or (unused and self.users):
                return False
            client, self._client = self._client, None
        if client is not None:
            client.close()
        self._async.close()
        return True

    def make(self) -> Elasticsearch:
        """A new client. Raises ``ConfigurationError``."""
        made: Elasticsearch = self._make(Elasticsearch)
        return made

    def begin(self) -> None:
        """A request runs on it from now on; called by the pool."""
        with self._lock:
            self._running += 1
            self.last_used = time.monotonic()

    @contextmanager
    def _one_request(self, patience: float) -> Iterator[None]:
        self.pool.admit(self, patience)
        try:
            yield
        finally:
            with self._lock:
                self._running -= 1
            if not self.users:
                self.close_if(unused=True)

    def _opened(self) -> Elasticsearch:
        client = self._client
        if client is not None:
            return client
        with self._lock:
            if self._client is None:
                self._client = self.make()
            return self._client

    def _make_async(self) -> AsyncElasticsearch:
        made: AsyncElasticsearch = self._make(AsyncElasticsearch)
        return made

    def _make(self, kind: Any) -> Any:
        options = dict(self.cluster.options)
        if "serializers" not in options:
            options.setdefault("serializer", serializer)
        try:
            return kind(list(self.cluster.hosts), **options)
        except (ValueError, TypeError, OSError, ImportError) as error:
            # Without the cause: its text may quote what the options hold.
            raise ConfigurationError(
                f"no client can be made for {self.cluster!r}: its OPTIONS are refused ({type(error).__name__})"
            ) from None
