"""Pools of psycopg connections: one for each database of each tenant, within the one budget and without threads.

``psycopg_pool`` gives each pool four threads, and opens connections that nobody has asked for: too much where each
tenant has one. This has its options and its errors as far as Django uses them; ``min_size`` opens nothing in advance.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from time import monotonic
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ImproperlyConfigured

from tenant_router import unit_of_work as units
from tenant_router.orm_backends.django_orm.databases import Database
from tenant_router.orm_backends.django_orm.physical import PhysicalConnection

if TYPE_CHECKING:
    from tenant_router.orm_backends.budget import Budget

Raw = Any  # psycopg.Connection
LOOK_GAP = 1.0  # seconds after which one who waits looks for units that became garbage, which nobody tells of


class PooledConnection(PhysicalConnection):
    """``raw``, in ``pool`` between two wrappers that borrow it."""

    __slots__ = ("born", "pool", "raw", "resting_until")

    def __init__(self, pool: ConnectionPool, raw: Raw) -> None:
        super().__init__(None, pool.database)
        self.pool, self.raw, self.born, self.resting_until = pool, raw, monotonic(), float("inf")

    def reclaim(self) -> bool:
        """Take it out of its pool, or from a borrower that rests."""
        if self.borrower is None:
            return self.pool.take_out(self)
        return super().reclaim()

    def idle_until(self) -> float | None:
        """When it has been idle for ``max_idle``; at once where a borrower keeps it that nobody uses."""
        return self.resting_until if self.borrower is None else super().idle_until()

    def close(self) -> None:
        """Close it, or give it back to its pool where a borrower has it."""
        if self.borrower is None:
            self.raw.close()
        else:
            super().close()


class ConnectionPool:
    """``connect`` opens a connection. ``options`` are those of ``psycopg_pool.ConnectionPool``, which it names alike.

    ``check`` raises for a connection that does not work.
    """

    def __init__(
        self,
        database: Database,
        budget: Budget[PhysicalConnection],
        connect: Callable[[], Raw],
        options: Mapping[str, Any],
        check: Callable[[Raw], None] | None,
    ) -> None:
        self.database, self.closed = database, False
        self.max_size = int(options.get("max_size") or options.get("min_size", 4))
        self.timeout = float(options.get("timeout", 30.0))  # seconds that a connection is waited for
        self.max_idle = float(options.get("max_idle", 600.0))
        self.max_lifetime = float(options.get("max_lifetime", 3600.0))
        self._budget, self._connect = budget, connect
        self._check = options.get("check", check)
        self._idle: list[PooledConnection] = []
        self._lent: dict[int, PooledConnection] = {}  # by the id of the connection
        self._opening = 0
        self._free = threading.Condition(budget.lock)
        self._waiting = 0

    def open(self, *args: Any, **kwargs: Any) -> None:
        """Django calls it before each use; there is nothing to start."""

    @property
    def size(self) -> int:
        """How many connections are open or being opened."""
        return len(self._idle) + len(self._lent) + self._opening

    def get_stats(self) -> dict[str, int]:
        """As ``psycopg_pool`` says it, as far as there is something to say."""
        return {
            "pool_min": 0,
            "pool_max": self.max_size,
            "pool_size": self.size,
            "pool_available": len(self._idle),
            "requests_waiting": self._waiting,
        }

    def getconn(self) -> Raw:
        """A connection that works. Raises ``psycopg_pool.PoolTimeout`` or ``TooManyConnections``."""
        deadline = monotonic() + self.timeout
        while (found := self._next(deadline)) is not None:
            works = False
            try:
                works = self._works(found)
            finally:
                if not works:  # also for one who was interrupted: nobody would give it back
                    self._discard(found)
            if works:
                return found.raw
        return self._opened()

    def lent(self, raw: Raw, borrower: Any) -> PooledConnection | None:
        """Note who has borrowed ``raw``."""
        found = self._lent.get(id(raw))
        if found is not None:
            found.borrower = borrower
        return found

    def putconn(self, raw: Raw) -> None:
        """Take back what :meth:`getconn` gave, as it was then.

        What cannot be put in order is closed, and what has lost its place in the budget.
        """
        found, usable = self._lent.get(id(raw)), False
        try:
            if found is not None and found.counted and not self.closed and not self.database.retired:
                usable = _is_in_order(raw)
        finally:  # also for one who was interrupted: nobody would give it back again
            with self._budget.lock:
                if found is not None:
                    del self._lent[id(raw)]
                    if found.borrower is not None:
                        found.borrower.physical = None
                    found.borrower = None
                if found is not None and usable:
                    found.resting_until = monotonic() + self.max_idle
                    self._idle.append(found)
                    self._budget.rest(found)
                self._free.notify()
            if not usable:
                if found is not None:
                    self._budget.closed(found)
                raw.close()

    def take_out(self, found: PooledConnection) -> bool:
        """Give up a connection that is idle; the budget's lock is held."""
        if found in self._idle:
            self._idle.remove(found)
            self._free.notify()
            return True
        return False

    def close(self) -> None:
        """Close what is idle; what is lent is closed when it comes back."""
        with self._budget.lock:
            self.closed = True
            idle, self._idle = self._idle, []
            for found in idle:
                self._budget.closed(found)
            self._free.notify_all()
        for found in idle:
            found.raw.close()

    # --- inside ---

    def _next(self, deadline: float) -> PooledConnection | None:
        """The connection that was used last; ``None`` when another one may be opened."""
        with self._budget.lock:
            while True:
                if self._idle:
                    found = self._idle.pop()
                    self._budget.idle.pop(found, None)
                    self._lent[id(found.raw)] = found
                    return found
                if self.size < self.max_size or self.closed:  # a closed one serves those who have come to it
                    self._opening += 1
                    return None
                self._wait(deadline)

    def _wait(self, deadline: float) -> None:
        from psycopg_pool import PoolTimeout

        left = deadline - monotonic()
        if left <= 0:
            raise PoolTimeout(f"couldn't get a connection after {self.timeout:.2f} sec")
        units.release_abandoned()
        if self._idle:
            return
        self._waiting += 1
        try:
            self._free.wait(min(left, LOOK_GAP))
        finally:
            self._waiting -= 1

    def _opened(self) -> Raw:
        try:
            place = self._budget.admit()
            try:
                raw = self._connect()
            except BaseException:
                self._budget.failed(place)
                raise
            try:
                self._budget.connected(place)
            except BaseException:
                raw.close()
                raise
            raw._pool = self  # where Django gives it back (backends/postgresql/base.py, _close)
            self._lent[id(raw)] = PooledConnection(self, raw)
            return raw
        finally:
            with self._budget.lock:
                self._opening -= 1
                self._free.notify()

    def _works(self, found: PooledConnection) -> bool:
        if found.raw.closed or monotonic() - found.born > self.max_lifetime:
            return False
        try:
            if self._check is not None:
                self._check(found.raw)
        except Exception:  # of any kind: another one is opened
            return False
        return True

    def _discard(self, found: PooledConnection) -> None:
        with self._budget.lock:
            self._lent.pop(id(found.raw), None)
        self._budget.closed(found)
        found.raw.close()


def pool_of(wrapper: Any, database: Database, budget: Budget[PhysicalConnection]) -> ConnectionPool:
    """The pool for the connections that ``wrapper`` would open. Raises ``ImproperlyConfigured``, as Django does."""
    settings = wrapper.settings_dict
    if settings["CONN_MAX_AGE"] != 0:
        raise ImproperlyConfigured("Pooling doesn't support persistent connections.")
    options = settings["OPTIONS"]["pool"]
    parameters = {**wrapper.get_connection_params(), "autocommit": True}  # Django sets it as it needs it
    connect, configure = wrapper.Database.connect, wrapper._configure_connection

    def opened() -> Raw:
        raw = connect(**parameters)
        configure(raw)
        return raw

    check = _ask if settings["CONN_HEALTH_CHECKS"] else None
    return ConnectionPool(database, budget, opened, {} if options is True else options, check)


def _ask(raw: Raw) -> None:
    raw.execute("")  # what psycopg_pool.ConnectionPool.check_connection does


def _is_in_order(raw: Raw) -> bool:
    from psycopg.pq import TransactionStatus

    try:
        if raw.info.transaction_status != TransactionStatus.IDLE:
            raw.rollback()
        return not raw.closed and raw.info.transaction_status == TransactionStatus.IDLE
    except Exception:  # it is broken, of whatever kind the fault is
        return False
