"""Asynchronous clients of one cluster, one for each event loop, because connections belong to a loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from typing import NamedTuple

from elasticsearch import AsyncElasticsearch

from tenant_router.orm_backends.connection_shares import ConnectionShares


class LoopClient(NamedTuple):
    """The client of one event loop, and its connections."""

    client: AsyncElasticsearch
    connections: ConnectionShares
    guard: AsyncGenerator[None, None]


class AsyncClients:
    """The clients of one cluster by event loop; each is closed when its loop ends, at the latest."""

    def __init__(self, make: Callable[[], AsyncElasticsearch], share: Callable[[], ConnectionShares]) -> None:
        self._make, self._share = make, share
        self._by_loop: dict[asyncio.AbstractEventLoop, LoopClient] = {}
        self._lock = threading.RLock()

    def __len__(self) -> int:
        return len(self._by_loop)

    async def of_running_loop(self) -> LoopClient:
        """The client of the running loop. Making it does no I/O."""
        loop = asyncio.get_running_loop()
        entry = self._by_loop.get(loop)
        if entry is None:
            self._drop_closed_loops()
            client = self._make()
            entry = self._by_loop[loop] = LoopClient(client, self._share(), _close_with_loop(client))
            await anext(entry.guard)
        return entry

    def take_all(self) -> Callable[[], None]:
        """Forget all. Returns what closes them: each in its own loop, which alone may.

        One whose loop stands still goes with that loop.
        """
        with self._lock:
            entries, self._by_loop = self._by_loop, {}

        def close() -> None:
            for loop, entry in entries.items():
                if loop.is_running():
                    with suppress(RuntimeError):  # it has ended just now, and closed its client
                        asyncio.run_coroutine_threadsafe(_closed(entry), loop)

        return close

    def _drop_closed_loops(self) -> None:
        with self._lock:
            for loop in [loop for loop in self._by_loop if loop.is_closed()]:
                del self._by_loop[loop]


async def _closed(entry: LoopClient) -> None:
    await entry.guard.aclose()


async def _close_with_loop(client: AsyncElasticsearch) -> AsyncGenerator[None, None]:
    """Nobody may close a client that is shared, and asgiref makes a loop for each call.

    What ends a loop in good order (``asyncio.run``, asgiref, uvicorn) finishes the loop's
    asynchronous generators first: this one then closes the client.
    """
    try:
        yield
    finally:
        await client.close()
