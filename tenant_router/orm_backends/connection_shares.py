"""The connections of one client, and which of the tenants on it may have one.

A tenant gets another connection while more are free than it has. So one that is slow has half of them at
most, two have three quarters, and there is one left for the next; one that is alone on the cluster has all.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from tenant_router.orm_backends.turns import Turn, TurnQueue


class ConnectionShares(TurnQueue[str]):
    """``total`` connections, perhaps infinitely many; ``alone`` says whether no other tenant is on the client."""

    def __init__(self, total: float, alone: Callable[[], bool] = lambda: False) -> None:
        self.free, self._alone = total, alone
        self.used: dict[str, int] = {}
        self._waiting: dict[str, deque[Turn]] = {}  # by tenant: who comes next is first
        self._lock = threading.RLock()  # a signal's handler may search wherever it interrupts a thread

    def take(self, tenant_id: str, patience: float) -> bool:
        """A connection for ``tenant_id``; ``False`` if there is none for ``patience`` seconds."""
        return self._take(tenant_id, patience)

    async def take_async(self, tenant_id: str, patience: float) -> bool:
        """:meth:`take`, in an event loop."""
        return await self._take_async(tenant_id, patience)

    def give_back(self, tenant_id: str) -> None:
        """A connection is free again."""
        with self._lock:
            self.free += 1
            self.used[tenant_id] -= 1
            if not self.used[tenant_id]:
                del self.used[tenant_id]
            if self._waiting:
                self._serve()

    def _enter(self, tenant_id: str, turn: Turn) -> bool:
        with self._lock:
            if tenant_id not in self._waiting and self._may(tenant_id):
                turn.granted = True
                self._count(tenant_id)
                return True
            self._waiting.setdefault(tenant_id, deque()).append(turn)
            return False

    def _give_up(self, tenant_id: str, turn: Turn, back: bool = False) -> bool:
        with self._lock:
            if turn.granted:
                if back:
                    self.give_back(tenant_id)
                return True
            queue = self._waiting.get(tenant_id)
            if queue is not None:
                with suppress(ValueError):
                    queue.remove(turn)
                if not queue:
                    self._waiting.pop(tenant_id, None)
            return False

    def _may(self, tenant_id: str) -> bool:
        return self.used.get(tenant_id, 0) < self.free or (self.free > 0 and self._alone())

    def _count(self, tenant_id: str) -> None:
        self.free -= 1
        self.used[tenant_id] = self.used.get(tenant_id, 0) + 1

    def _serve(self) -> None:
        """Give what is free to those who wait: to each tenant in turn."""
        while self.free > 0:
            tenant_id = next((each for each in self._waiting if self._may(each)), None)
            if tenant_id is None:
                return
            queue = self._waiting.pop(tenant_id)
            if queue.popleft().grant():
                self._count(tenant_id)
            if queue:
                self._waiting[tenant_id] = queue
