"""The pool of a process's Elasticsearch clients: at most ``MAX_OPEN_CLIENTS`` are open.

The rules are those of tenants' database connections: a client that a request runs on, or that a living unit
of work has used, is nobody's to close; the others make room, the least recently used first; who finds no room
waits in the order of coming, for two seconds at most. The lock is held for numbers alone: clients are made
and closed outside of it.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial

from tenant_router import context as _context
from tenant_router import unit_of_work as units
from tenant_router.exceptions import TooManyConnections
from tenant_router.janitor import Janitor
from tenant_router.orm_backends.es_orm.settings import Cluster
from tenant_router.orm_backends.es_orm.shared_client import SharedClient
from tenant_router.orm_backends.es_orm.use import Use
from tenant_router.orm_backends.turns import Turn, TurnQueue
from tenant_router.unit_of_work import Unit


class ClientPool(TurnQueue[SharedClient]):
    """All shared clients of a process; at most ``limit`` of them (one always) are open."""

    def __init__(self, limit: int) -> None:
        self.limit = max(1, limit)
        # In a test run, called with the prefix, method and path of each request before it is sent; raises to refuse it.
        self.gate: Callable[[str, str, str], None] | None = None
        self._clients: weakref.WeakValueDictionary[str, SharedClient] = weakref.WeakValueDictionary()
        self.janitor = Janitor()
        self._begin()

    def _begin(self) -> None:
        # Re-entrant: a signal's handler may search wherever it interrupts a thread.
        self.lock, self._inside = threading.RLock(), 0
        self._open: dict[SharedClient, None] = {}
        self._idle: dict[SharedClient, None] = {}  # those of the open that nobody uses, least recently used first
        self._queue: dict[Turn, SharedClient] = {}  # who waits, in the order of coming
        self._waiting: dict[SharedClient, dict[Turn, None]] = {}  # the same by what they wait for
        self._released: deque[SharedClient] = deque()
        self._to_close: deque[Callable[[], None]] = deque()

    def get(self, cluster: Cluster) -> SharedClient:
        """The client of a cluster; nothing is opened."""
        key = cluster.key
        with self.lock:
            found = self._clients.get(key)
            if found is None:
                found = self._clients[key] = SharedClient(cluster, self)
            return found

    def reset_after_fork(self) -> None:
        """In a forked child: every client is made anew."""
        self.janitor.reset_after_fork()
        self._begin()
        for client in list(self._clients.values()):
            client.reset_after_fork()

    def close(self) -> None:
        """Close what no request runs on, and end the thread that closes."""
        with self._changing():
            for client in [client for client in self._open if not client.running]:
                self._shut(client)
        self.janitor.stop()

    def open(self) -> list[SharedClient]:
        """The clients that have a place."""
        return [*self._open]

    def is_open(self, client: SharedClient) -> bool:
        """Whether ``client`` has a place."""
        return client in self._open

    def waiting_count(self) -> int:
        """How many wait for a place."""
        return len(self._queue)

    def admit(self, client: SharedClient, patience: float) -> None:
        """Begin a request of ``client``, for which :meth:`leave` is called when it ends.

        Raises ``TooManyConnections`` when all clients stay in use for ``patience`` seconds.
        """
        units.release_abandoned()
        if not self._take(client, patience):
            raise self._too_many()

    async def admit_async(self, client: SharedClient, patience: float) -> None:
        """:meth:`admit`, in an event loop."""
        units.release_abandoned()
        if not await self._take_async(client, patience):
            raise self._too_many()

    def leave(self, client: SharedClient) -> None:
        """A request has ended."""
        with self._changing():
            client.running -= 1
            self._rest(client)

    def use(self, client: SharedClient, tenant_id: str) -> None:
        """The unit of work that runs here, if there is one, uses ``client`` until it ends, or leaves the tenant."""
        bound = _context.stack.get()
        if not bound or bound[0].over:
            return
        unit: Unit = bound[0]
        with self.lock:
            of_unit = client.uses.setdefault(unit, {})
            use: Use | None = of_unit.get(tenant_id)
            if use is None:
                use = of_unit[tenant_id] = Use(tenant_id, client, self)
        if use.counted:
            return
        self.count(client, use, True)  # first: the unit may end at any moment, and takes it back
        unit.use(use)
        if use not in unit.uses:
            self.count(client, use, False)

    def count(self, client: SharedClient, use: Use, counted: bool) -> None:
        """Whether a unit uses ``client``. Idempotent."""
        with self._changing():
            if use.counted is not counted:
                use.counted = counted
                client.units += 1 if counted else -1
                self._rest(client)

    def acquire(self, client: SharedClient) -> None:
        """A tenant has ``client``."""
        with self.lock:
            client.users += 1

    def release(self, client: SharedClient) -> None:
        """A tenant has it no longer; the last one closes it. May be called by the garbage collector, wherever it is."""
        self._released.append(client)
        if self.lock.acquire(blocking=False):
            try:
                inside = self._inside
            finally:
                self.lock.release()
            if not inside:
                self.collect()
        if self._released and self.janitor.threaded:
            self.janitor.do(self.collect)

    def collect(self) -> None:
        """Take notice of what was released."""
        with self._changing():
            pass

    # --- inside, with the lock ---

    @contextmanager
    def _changing(self) -> Iterator[None]:
        with self.lock:
            self._inside += 1
            try:
                yield
                while self._released:
                    client = self._released.popleft()
                    client.users -= 1
                    self._rest(client)
            finally:
                self._inside -= 1
        while self._to_close:
            with suppress(IndexError):  # another thread has taken it
                self.janitor.do(self._to_close.popleft())

    def _enter(self, client: SharedClient, turn: Turn) -> bool:
        with self._changing():
            if client in self._open or self._make_room():  # while others wait there is none
                turn.granted = True
                self._let_in(client)
                client.running += 1
                return True
            self._queue[turn] = client
            self._waiting.setdefault(client, {})[turn] = None
            return False

    def _give_up(self, client: SharedClient, turn: Turn, back: bool = False) -> bool:
        with self._changing():
            if turn.granted:
                if back:
                    client.running -= 1
                    self._rest(client)
                return True
            if self._queue.pop(turn, None) is not None:
                del self._waiting[client][turn]
                if not self._waiting[client]:
                    del self._waiting[client]
            return False

    def _let_in(self, client: SharedClient) -> None:
        self._open[client] = None
        self._idle.pop(client, None)

    def _make_room(self) -> bool:
        if len(self._open) < self.limit:
            return True
        oldest = next(iter(self._idle), None)
        if oldest is not None:
            self._shut(oldest)
        return oldest is not None

    def _rest(self, client: SharedClient) -> None:
        """Perhaps nobody uses it any more."""
        self._idle.pop(client, None)
        if client not in self._open or client.running or client.units:
            return
        if client.users > 0:
            self._idle[client] = None
        else:
            self._shut(client)
        self._serve()

    def _serve(self) -> None:
        """Let in who waits: the first, and with it all who wait for the same client."""
        while self._queue:
            client = next(iter(self._queue.values()))
            if client not in self._open and not self._make_room():
                return
            self._let_in(client)
            for turn in self._waiting.pop(client):
                del self._queue[turn]
                client.running += turn.grant()
            if not client.running:  # they wait no longer
                self._rest(client)

    def _shut(self, client: SharedClient) -> None:
        self._open.pop(client, None)
        self._idle.pop(client, None)
        self._to_close.append(partial(_close, client.take_clients()))

    def _too_many(self) -> TooManyConnections:
        return TooManyConnections(
            f"all {self.limit} Elasticsearch clients of this process are in use; "
            "OPTIONS['MAX_OPEN_CLIENTS'] of 'es_orm' allows more"
        )


def _close(closings: list[Callable[[], None]]) -> None:
    for close in closings:
        close()
