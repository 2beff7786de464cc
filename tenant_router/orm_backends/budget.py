"""How many connections, or clients, of tenants may be open in a process: a place for each, and a queue for more.

What counts is what is open or being opened. Admission looks at nothing but numbers and the oldest idle one.
"""

from __future__ import annotations

import threading
from collections import deque
from time import monotonic
from typing import Generic, Protocol, TypeVar

from tenant_router import unit_of_work as units
from tenant_router.exceptions import TooManyConnections

WAIT_FOR_CONNECTION = 2.0  # seconds that a place is waited for
HOLD = 0.2  # seconds for which an attempt to connect holds its place: who cannot be reached keeps nobody waiting


class Counted(Protocol):
    """What a budget counts: an open connection, or a client. ``counted``: whether it has a place."""

    counted: bool

    def reclaim(self) -> bool:
        """Take it from whoever had it, if nobody uses it; ``False`` where it is not to be had. The lock is held."""

    def close(self) -> None:
        """Close it, after it was reclaimed. Never raises."""


Item = TypeVar("Item", bound=Counted)


class Place:
    """A place for one connection. ``victim``: what is to be closed before another one is opened."""

    __slots__ = ("changed", "granted", "since", "victim")

    def __init__(self) -> None:
        self.victim: Counted | None = None
        self.granted = False
        self.since = 0.0  # time.monotonic() when it was granted
        self.changed: threading.Condition | None = None  # of one who waits


class Budget(Generic[Item]):
    """``limit``: how many may be open (one always may). ``what``, ``option``: what they are, and what allows more."""

    def __init__(self, limit: int, what: str, option: str) -> None:
        self.limit = max(1, limit)
        self._what, self._option = what, option
        # Re-entrant: a signal's handler may use a database wherever it interrupts a thread, as Celery beat's does.
        self.lock = threading.RLock()
        self.open = 0
        self.forsaken = False  # what it counts is a parent process's
        self.idle: dict[Item, None] = {}  # least recently used first
        self._attempts: dict[Place, None] = {}  # that hold a place, oldest first
        self._waiting: deque[Place] = deque()

    def open_count(self) -> int:
        """How many are open in this process, in pools too."""
        return self.open

    def waiting_count(self) -> int:
        """How many wait for a place."""
        return len(self._waiting)

    def admit(self) -> Place:
        """A place to connect, in the order of coming. Closes the least recently used idle connection for it.

        Raises ``TooManyConnections`` when there is none for ``WAIT_FOR_CONNECTION`` seconds.
        """
        units.release_abandoned()
        place = Place()
        try:
            with self.lock:
                if self._waiting or not self._grant(place):
                    self._wait_for(place)
        finally:
            self._close_victim(place)  # also for one who was interrupted when it was granted a place
        return place

    def connected(self, place: Place) -> None:
        """The attempt succeeded: its connection is open. One that took long asks for a place again.

        Raises ``TooManyConnections``.
        """
        try:
            with self.lock:
                if place not in self._attempts and (self._waiting or not self._grant(place)):
                    place.granted = False
                    self._wait_for(place)
                del self._attempts[place]
                self.open += 1
        finally:
            self._close_victim(place)

    def failed(self, place: Place) -> None:
        """The attempt did not succeed."""
        with self.lock:
            self._attempts.pop(place, None)
            self.serve_waiting()

    def closed(self, connection: Item) -> None:
        """A connection is open no longer. Idempotent."""
        with self.lock:
            self.idle.pop(connection, None)
            if connection.counted:
                connection.counted = False
                self.open -= 1
                self.serve_waiting()

    def rest(self, connection: Item) -> None:
        """A connection is in use no longer: it may make room. The lock is held."""
        if connection.counted:  # or a signal's handler has closed it meanwhile
            self.idle[connection] = None
            if self._waiting:
                self.serve_waiting()

    def serve_waiting(self) -> None:
        """Give places to those who wait, the first who came first. The lock is held."""
        while self._waiting and self._grant(self._waiting[0]):
            place = self._waiting.popleft()
            if place.changed is not None:
                place.changed.notify()

    def _grant(self, place: Place) -> bool:
        now = monotonic()
        self._expire_attempts(now)
        if self.open + len(self._attempts) >= self.limit:
            place.victim = self._take_oldest_idle()
            if place.victim is None:
                return False
        self._attempts[place] = None
        place.since, place.granted = now, True
        return True

    def _take_oldest_idle(self) -> Item | None:
        for connection in self.idle:
            if connection.reclaim():
                del self.idle[connection]
                if connection.counted:
                    connection.counted = False
                    self.open -= 1
                return connection
        return None

    def _expire_attempts(self, now: float) -> None:
        while self._attempts and (oldest := next(iter(self._attempts))).since + HOLD <= now:
            del self._attempts[oldest]

    def _wait_for(self, place: Place) -> None:
        deadline = monotonic() + WAIT_FOR_CONNECTION
        place.changed = threading.Condition(self.lock)
        self._waiting.append(place)
        try:
            while not place.granted:
                left = deadline - monotonic()
                if left <= 0:
                    raise TooManyConnections(
                        f"all {self.limit} {self._what} of this process are in use; {self._option} allows more"
                    )
                first = self._waiting[0] is place
                # Only the first looks for what nobody tells of: attempts that take long, units that became garbage.
                place.changed.wait(min(left, HOLD) if first else left)
                if first and not place.granted:
                    units.release_abandoned()
                    self.serve_waiting()
        finally:
            place.changed = None
            if not place.granted:
                self._waiting.remove(place)
            if self._waiting and (following := self._waiting[0].changed) is not None:
                following.notify()  # it is the first now

    def _close_victim(self, place: Place) -> None:
        victim, place.victim = place.victim, None
        if victim is not None:
            victim.close()
