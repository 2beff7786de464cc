"""Who waits in a queue, in a thread or in an event loop, and is told when it is its turn."""

from __future__ import annotations

import asyncio
import threading
from time import monotonic
from typing import Any, Protocol

from tenant_router import unit_of_work as units

LOOK = 0.2  # seconds between two looks for units of work that became garbage: nobody tells of them


class Turn(Protocol):
    """One who waits."""

    granted: bool

    def grant(self) -> bool:
        """It is its turn. ``False`` if nobody waits any more. Called in any thread, under the queue's lock."""


class ThreadTurn:
    """A thread that waits."""

    def __init__(self) -> None:
        self.granted = False
        self._event = threading.Event()

    def grant(self) -> bool:
        """See :class:`Turn`."""
        self.granted = True
        self._event.set()
        return True

    def wait(self, seconds: float) -> None:
        """Until it is granted, but ``seconds`` at most."""
        deadline = monotonic() + seconds
        while not self.granted and (left := deadline - monotonic()) > 0:
            units.release_abandoned()
            self._event.wait(min(left, LOOK))


class TaskTurn:
    """A task that waits, in the running event loop."""

    def __init__(self) -> None:
        self.granted = False
        self._loop = asyncio.get_running_loop()
        self._told: asyncio.Future[None] = self._loop.create_future()

    def grant(self) -> bool:
        """See :class:`Turn`."""
        self.granted = True
        try:
            self._loop.call_soon_threadsafe(_tell, self._told)
        except RuntimeError:  # the loop is closed, and its tasks with it
            self.granted = False
        return self.granted

    async def wait(self, seconds: float) -> None:
        """Until it is granted, but ``seconds`` at most."""
        deadline = monotonic() + seconds
        while not self.granted and (left := deadline - monotonic()) > 0:
            units.release_abandoned()
            await asyncio.wait([self._told], timeout=min(left, LOOK))


def _tell(told: asyncio.Future[Any]) -> None:
    if not told.done():
        told.set_result(None)
