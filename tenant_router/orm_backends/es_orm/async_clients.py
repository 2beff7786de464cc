"""Asynchronous clients of one cluster, one for each event loop, because connections belong to a loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable
from typing import NamedTuple

from elasticsearch import AsyncElasticsearch


class _Entry(NamedTuple):
    client: AsyncElasticsearch
    guard: AsyncGenerator[None, None]


class AsyncClients:
    """The clients of one cluster by event loop; each is closed when its loop ends, at the latest."""

    def __init__(self, make: Callable[[], AsyncElasticsearch]) -> None:
        self._make = make
        self._by_loop: dict[asyncio.AbstractEventLoop, _Entry] = {}
        self._lock = threading.RLock()

    def __len__(self) -> int:
        return len(self._by_loop)

    async def of_running_loop(self) -> AsyncElasticsearch:
        """The client of the running loop."""
        loop = asyncio.get_running_loop()
        entry = self._by_loop.get(loop)
        if entry is None:
            self._drop_closed_loops()
            client = self._make()
            entry = self._by_loop[loop] = _Entry(client, _close_with_loop(client))
            await anext(entry.guard)
        return entry.client

    def close(self) -> None:
        """Close all: each in its own loop, which alone may. One whose loop stands still goes with that loop."""
        with self._lock:
            entries, self._by_loop = self._by_loop, {}
        for loop, (_, guard) in entries.items():
            if loop.is_running():
                asyncio.run_coroutine_threadsafe(guard.aclose(), loop)

    def _drop_closed_loops(self) -> None:
        with self._lock:
            for loop in [loop for loop in self._by_loop if loop.is_closed()]:
                del self._by_loop[loop]


async def _close_with_loop(client: AsyncElasticsearch) -> AsyncGenerator[None, None]:
    """Nobody may close a client that is shared, and asgiref makes a loop for each call.

    What ends a loop in good order (``asyncio.run``, asgiref, uvicorn) finishes the loop's
    asynchronous generators first: this one then closes the client.
    """
    try:
        yield
    finally:
        await client.close()
