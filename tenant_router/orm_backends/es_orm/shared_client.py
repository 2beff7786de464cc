"""The client of one cluster with its credentials and options, which all tenants on it share.

A client is made at its first request, closed when the last tenant that had it is gone from the
registry and from every unit of work, and made again should somebody still ask for it. So it can
be closed at any time that nobody uses it: also to make room for another one.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import cached_property
from typing import Any, Protocol

from elastic_transport import SerializerCollection
from elasticsearch import AsyncElasticsearch, ConnectionTimeout, Elasticsearch
from elasticsearch.serializer import DEFAULT_SERIALIZERS

from tenant_router.exceptions import ConfigurationError
from tenant_router.orm_backends.connection_shares import ConnectionShares
from tenant_router.orm_backends.es_orm.async_clients import AsyncClients
from tenant_router.orm_backends.es_orm.dsl import serializer
from tenant_router.orm_backends.es_orm.settings import REQUEST_TIMEOUT, Cluster
from tenant_router.orm_backends.es_orm.sniffing import BoundedAsyncTransport, BoundedTransport
from tenant_router.unit_of_work import Unit

WAIT_FOR_CLIENT = 2.0  # seconds that a place among the open clients is waited for


class Admission(Protocol):
    """Who decides how many clients are open: a ``ClientPool``."""

    gate: Callable[[str, str, str], None] | None

    def admit(self, client: SharedClient, patience: float) -> None:
        """Begin a request of ``client``. Raises ``TooManyConnections`` after ``patience`` seconds."""

    async def admit_async(self, client: SharedClient, patience: float) -> None:
        """The same in an event loop."""

    def leave(self, client: SharedClient) -> None:
        """A request has ended."""

    def use(self, client: SharedClient, tenant_id: str) -> None:
        """The unit of work that runs here uses ``client``."""

    def acquire(self, client: SharedClient) -> None:
        """A tenant has it."""

    def release(self, client: SharedClient) -> None:
        """A tenant has it no longer."""

    def is_open(self, client: SharedClient) -> bool:
        """Whether it has a place."""


class SharedClient:
    """The client of one cluster. Its numbers are the pool's, and change under the pool's lock.

    ``users``: how many ``TenantClients`` have it; ``units``: how many units of work have used it, each with
    what it used in ``uses``; ``running``: how many requests run on it.
    """

    def __init__(self, cluster: Cluster, pool: Admission) -> None:
        self.cluster, self.pool = cluster, pool
        self.users = 0
        self._inherited: list[Any] = []
        self._begin()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.cluster!r}{' open' if self.is_open else ''}>"

    def reset_after_fork(self) -> None:
        """Leave alone what the parent opened: collecting it would complain that it was never closed."""
        self._inherited += [self._client, self._async]
        self._begin()

    def _begin(self) -> None:
        self.running = self.units = 0
        self.uses: weakref.WeakKeyDictionary[Unit, dict[str, Any]] = weakref.WeakKeyDictionary()
        self._making = threading.Lock()  # held while the client is made: only requests of its own tenants wait for it
        self._client: Elasticsearch | None = None
        self._connections = self._shares()
        self._async = AsyncClients(self._make_async, self._shares)

    @property
    def is_open(self) -> bool:
        """Whether it holds connections, or is about to."""
        return self.pool.is_open(self)

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
    def sync(self, tenant_id: str = "") -> Iterator[Elasticsearch]:
        """The client, for the time of one request of a tenant.

        Raises ``TooManyConnections``, and ``ConnectionTimeout`` when the tenant gets no connection of it in time.
        """
        self.pool.admit(self, WAIT_FOR_CLIENT)
        try:
            self.pool.use(self, tenant_id)
            client = self._opened()
            if not self._connections.take(tenant_id, self._patience):
                raise self._none_free()
            try:
                yield client
            finally:
                self._connections.give_back(tenant_id)
        finally:
            self.pool.leave(self)

    @asynccontextmanager
    async def async_client(self, tenant_id: str = "") -> AsyncIterator[AsyncElasticsearch]:
        """The client of the running event loop, for the time of one request of a tenant. Raises as :meth:`sync`."""
        await self.pool.admit_async(self, WAIT_FOR_CLIENT)
        try:
            self.pool.use(self, tenant_id)
            found = await self._async.of_running_loop()
            if not await found.connections.take_async(tenant_id, self._patience):
                raise self._none_free()
            try:
                yield found.client
            finally:
                found.connections.give_back(tenant_id)
        finally:
            self.pool.leave(self)

    def acquire(self) -> None:
        """One user more."""
        self.pool.acquire(self)

    def release(self) -> None:
        """One user less; the last one closes it."""
        self.pool.release(self)

    def take_clients(self) -> list[Callable[[], None]]:
        """Forget the clients. Returns what closes them."""
        client, self._client = self._client, None
        closings = [self._async.take_all()]
        return closings if client is None else [client.close, *closings]

    def make(self) -> Elasticsearch:
        """A new client. Raises ``ConfigurationError``."""
        made: Elasticsearch = self._make(Elasticsearch, BoundedTransport)
        return made

    @property
    def _patience(self) -> float:
        """Seconds that a request waits for a client that is being made, and for one of its connections.

        Else it would wait without bound while a server hangs.
        """
        return float(self.cluster.options.get("request_timeout") or REQUEST_TIMEOUT)

    def _opened(self) -> Elasticsearch:
        client = self._client
        if client is not None:
            return client
        if not self._making.acquire(timeout=self._patience):
            raise ConnectionTimeout(f"the client of {self.cluster!r} was being made for {self._patience} s")
        try:
            if self._client is None:
                self._client = self.make()
            return self._client
        finally:
            self._making.release()

    def _shares(self) -> ConnectionShares:
        per_node = self.cluster.options.get("connections_per_node", 10)
        return ConnectionShares(per_node * len(self.cluster.hosts), lambda: self.users < 2)

    def _none_free(self) -> ConnectionTimeout:
        return ConnectionTimeout(
            f"all connections to {self.cluster!r}, or all of this tenant's share, were in use for {self._patience} s"
        )

    def _make_async(self) -> AsyncElasticsearch:
        made: AsyncElasticsearch = self._make(AsyncElasticsearch, BoundedAsyncTransport)
        return made

    def _make(self, kind: Any, transport: type) -> Any:
        options = {"transport_class": transport, **self.cluster.options}
        if "serializers" not in options:
            options.setdefault("serializer", serializer)
        try:
            return kind(list(self.cluster.hosts), **options)
        except (ValueError, TypeError, OSError, ImportError) as error:
            # Without the cause: its text may quote what the options hold.
            raise ConfigurationError(
                f"no client can be made for {self.cluster!r}: its OPTIONS are refused ({type(error).__name__})"
            ) from None
