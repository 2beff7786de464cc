"""Asynchronous clients of one cluster: their connections belong to an event loop, so there is one for each."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

from elasticsearch import AsyncElasticsearch


class AsyncClients:
    """The clients of one cluster by event loop; those of loops that have ended are dropped."""

    def __init__(self, make: Callable[[], AsyncElasticsearch]) -> None:
        self._make = make
        self._by_loop: dict[asyncio.AbstractEventLoop, AsyncElasticsearch] = {}
        self._lock = threading.RLock()

    def __bool__(self) -> bool:
        return bool(self._by_loop)

    def mine(self) -> AsyncElasticsearch:
        """The client of the running loop."""
        loop = asyncio.get_running_loop()
        found = self._by_loop.get(loop)
        if found is not None:
            return found
        self._drop_ended()
        with self._lock:
            return self._by_loop.setdefault(loop, self._make())

    def close(self) -> None:
        """Close all: each by its own loop, which alone may."""
        with self._lock:
            clients, self._by_loop = self._by_loop, {}
        for loop, client in clients.items():
            _close(loop, client)

    def _drop_ended(self) -> None:
        with self._lock:
            ended = [loop for loop in self._by_loop if loop.is_closed()]
            clients = [(loop, self._by_loop.pop(loop)) for loop in ended]
        for loop, client in clients:
            _close(loop, client)


def _close(loop: asyncio.AbstractEventLoop, client: AsyncElasticsearch) -> None:
    if loop.is_running():
        asyncio.run_coroutine_threadsafe(client.close(), loop)
        return
    # The loop will never run again (asgiref makes one for each call): its sockets are closed from here. What
    # aiohttp does in close() when no connection is busy needs no loop.
    closing = client.close()
    try:
        closing.send(None)
    except (StopIteration, RuntimeError):
        pass
    finally:
        closing.close()
