"""Who gets a connection of a pool that several tenants share.

A tenant gets another one while more are free than it holds already. So one tenant alone gets half of the pool, two get
a third each, and whoever comes finds one: a slow tenant takes from itself first.
"""

from __future__ import annotations

import threading
from collections import deque


class Shares:
    """``size``: how many connections there are; ``None`` for no limit."""

    def __init__(self, size: int | None) -> None:
        self._size = size
        self._lock = threading.Lock()
        self._taken = 0
        self._held: dict[str, int] = {}
        self._waiting: dict[str, deque[threading.Event]] = {}  # by tenant; the one that was served last comes last

    def take(self, tenant_id: str, timeout: float | None) -> bool:
        """Take one, in the tenant's own order of coming; ``False`` if there is none within ``timeout`` seconds."""
        with self._lock:
            if tenant_id not in self._waiting and self._fits(tenant_id):
                self._grant(tenant_id)
                return True
            turn = threading.Event()
            self._waiting.setdefault(tenant_id, deque()).append(turn)
        try:
            turn.wait(timeout)
        except BaseException:
            if self._gave_up(tenant_id, turn):
                raise
            self.give_back(tenant_id)
            raise
        return not self._gave_up(tenant_id, turn)

    def give_back(self, tenant_id: str) -> None:
        """Give one back that was taken."""
        with self._lock:
            self._taken -= 1
            left = self._held[tenant_id] - 1
            if left:
                self._held[tenant_id] = left
            else:
                del self._held[tenant_id]
            if self._waiting:
                self._serve()

    def _fits(self, tenant_id: str) -> bool:
        return self._size is None or self._held.get(tenant_id, 0) < self._size - self._taken

    def _grant(self, tenant_id: str) -> None:
        self._taken += 1
        self._held[tenant_id] = self._held.get(tenant_id, 0) + 1

    def _serve(self) -> None:
        """At most as many look as tenants wait: of each the first alone."""
        for tenant_id in [*self._waiting]:
            if self._fits(tenant_id):
                queue = self._waiting.pop(tenant_id)
                queue.popleft().set()
                self._grant(tenant_id)
                if queue:
                    self._waiting[tenant_id] = queue

    def _gave_up(self, tenant_id: str, turn: threading.Event) -> bool:
        """Whether the turn has not come; it does not come any more."""
        with self._lock:
            if turn.is_set():
                return False
            queue = self._waiting[tenant_id]
            queue.remove(turn)
            if not queue:
                del self._waiting[tenant_id]
            return True
