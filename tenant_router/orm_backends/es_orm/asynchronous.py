"""Asynchronous clients of one cluster: their connections belong to an event loop, so there is one for each."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable
from typing import NamedTuple

from elasticsearch import AsyncElasticsearch


class _Held(NamedTuple):
    client: AsyncElasticsearch
    guard: AsyncGenerator[None, None]


class AsyncClients:
    """The clients of one cluster by event loop; each is closed when its loop ends, at the latest."""

    def __init__(self, make: Callable[[], AsyncElasticsearch]) -> None:
        self._make = make
        self._by_loop: dict[asyncio.AbstractEventLoop, _Held] = {}
        self._lock = threading.RLock()

    def __len__(self) -> int:
        return len(self._by_loop)

    async def mine(self) -> AsyncElasticsearch:
        """The client of the running loop."""
        loop = asyncio.get_running_loop()
        held = self._by_loop.get(loop)
        if held is None:
            self._forget_ended()
            client = self._make()
            held = self._by_loop[loop] = _Held(client, _close_with_loop(client))
            await anext(held.guard)
        return held.client

    def close(self) -> None:
        """Close all: each in its own loop, which alone may. One whose loop stands still goes with that loop."""
        with self._lock:
            held, self._by_loop = self._by_loop, {}
        for loop, (_, guard) in held.items():
            if loop.is_running():
                asyncio.run_coroutine_threadsafe(guard.aclose(), loop)

    def _forget_ended(self) -> None:
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
