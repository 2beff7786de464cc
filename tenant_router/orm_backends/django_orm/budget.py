"""How many tenant connections may be open in a process, and which one closes for another."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

from tenant_router.exceptions import TooManyConnections
from tenant_router.orm_backends.django_orm.databases import Database

WAIT_FOR_CONNECTION = 2.0  # seconds that a connection is waited for when all are in use


class Budget:
    """Counts the open connections, and the databases with a pool.

    ``close`` closes the one that it is given, if no unit of work needs it, and says whether it did.
    """

    def __init__(self, close: Callable[[Any], bool]) -> None:
        self._close = close
        self._lock = threading.RLock()  # re-entrant, as a slot's
        # Weak, because a thread that ends takes its connections along without closing them.
        self._open: weakref.WeakSet[Any] = weakref.WeakSet()

    def open_count(self) -> int:
        """How many tenant connections are open in this process; a pool counts as its ``max_size``."""
        with self._lock:
            return sum(_weight(holder) for holder in list(self._open))

    def admit(self, holder: Any, limit: int) -> None:
        """Count a connection (or a database's pool) about to be opened; make room when ``limit`` is reached.

        Raises ``TooManyConnections`` when all stay in use for ``WAIT_FOR_CONNECTION`` seconds.
        """
        deadline = time.monotonic() + WAIT_FOR_CONNECTION
        while not self._admit_now(holder, limit):
            if self._evict():
                continue
            if time.monotonic() >= deadline:
                raise TooManyConnections(
                    f"all {limit} tenant connections of this process are in use; "
                    "OPTIONS['MAX_OPEN_CONNECTIONS'] of 'django_orm' allows more"
                )
            time.sleep(0.01)

    def discharge(self, holder: Any) -> None:
        """Count a connection no longer."""
        with self._lock:
            self._open.discard(holder)

    def _admit_now(self, holder: Any, limit: int) -> bool:
        with self._lock:
            others = sum(_weight(other) for other in list(self._open) if other is not holder)
            if others and others + _weight(holder) > limit:
                return False
            self._open.add(holder)
            return True

    def _evict(self) -> bool:
        """Close the least recently used connection that no unit of work needs; whether there was one."""
        with self._lock:
            oldest_first = sorted(self._open, key=lambda holder: holder.last_used)
        return any(self._close(holder) for holder in oldest_first)


def _weight(holder: Any) -> int:
    if not isinstance(holder, Database):
        return 1
    options = holder.settings["OPTIONS"].get("pool")
    options = options if isinstance(options, dict) else {}
    # psycopg_pool.ConnectionPool: min_size is 4 by default, and max_size is min_size unless given
    return int(options.get("max_size") or options.get("min_size", 4))
