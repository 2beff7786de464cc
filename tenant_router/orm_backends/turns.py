"""Who waits in a queue, in a thread or in an event loop, and is told when it is its turn."""

from __future__ import annotations

import asyncio
import threading
from time import monotonic
from typing import Any, Generic, Protocol, TypeVar

from tenant_router import unit_of_work as units

LOOK = 0.2  # seconds between two looks for units of work that became garbage: nobody tells of them


Who = TypeVar("Who")


class Turn(Protocol):
    """One who waits."""

    granted: bool

    def grant(self) -> bool:
        """It is its turn. ``False`` if nobody waits any more. Called in any thread, under the queue's lock."""


class ThreadTurn:
    """A thread that waits."""

    def __init__(self) -> None:
        self.granted = False
        self._event: threading.Event | None = None  # most need not wait

    def grant(self) -> bool:
        """See :class:`Turn`."""
        self.granted = True  # first: who has no event yet looks at this before it waits for one
        if self._event is not None:
            self._event.set()
        return True

    def wait(self, seconds: float) -> None:
        """Until it is granted, but ``seconds`` at most."""
        deadline, event = monotonic() + seconds, threading.Event()
        self._event = event
        while not self.granted and (left := deadline - monotonic()) > 0:
            units.release_abandoned()
            event.wait(min(left, LOOK))


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


class TurnQueue(Generic[Who]):
    """Those who want what there is a limited number of, and who it is given to: a subclass knows what that is."""

    def _enter(self, who: Who, turn: Turn) -> bool:
        """Whether ``who`` has one at once, ``turn`` being granted then; else it waits for its turn."""
        raise NotImplementedError

    def _give_up(self, who: Who, turn: Turn, back: bool = False) -> bool:
        """Wait no longer. Whether it was granted just now; ``back``: then it is given back."""
        raise NotImplementedError

    def _take(self, who: Who, patience: float) -> bool:
        """One for ``who``; ``False`` if there is none for ``patience`` seconds."""
        turn = ThreadTurn()
        try:
            if not self._enter(who, turn):
                turn.wait(patience)
        except BaseException:
            self._give_up(who, turn, back=True)
            raise
        return turn.granted or self._give_up(who, turn)

    async def _take_async(self, who: Who, patience: float) -> bool:
        """:meth:`_take`, in an event loop."""
        turn = TaskTurn()
        try:
            if not self._enter(who, turn):
                await turn.wait(patience)
        except BaseException:
            self._give_up(who, turn, back=True)
            raise
        return turn.granted or self._give_up(who, turn)
