"""The open connections: per thread, per database, and how many of them in the process.

Django keeps a thread's connections in an asgiref ``Local``, which turns into a context
variable inside an event loop and is slow to ask for what is not there. Tenants' connections
live in an own thread-local instead, keyed by the database entry, which is one alias at one
revision: two revisions may meet in one thread.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol

from tenant_router import context as _context
from tenant_router.context import TenantContext
from tenant_router.exceptions import TooManyConnections

WAIT_FOR_CONNECTION = 2.0  # seconds that a connection is waited for when all are in use
SWEEPER_PATIENCE = 1.0  # seconds that a sweeper waits for a thread that is closing connections itself


class Database:
    """One tenant's database at one revision: its alias, its frozen settings, its pools."""

    __slots__ = ("__weakref__", "alias", "last_used", "pools", "retired", "settings", "template", "tenant_id")

    def __init__(self, tenant_id: str, template: str, alias: str, settings: dict[str, Any]) -> None:
        self.tenant_id, self.template, self.alias, self.settings = tenant_id, template, alias, settings
        self.pools: dict[str, Any] = {}  # psycopg pools; Django would keep them on a class, by alias alone
        self.retired = False
        self.last_used = 0.0  # time.monotonic()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.alias!r}{' retired' if self.retired else ''}>"

    def close_pools(self) -> None:
        """Close the pools. A connection that is out comes back to a closed pool, which closes it."""
        while self.pools:
            self.pools.popitem()[1].close()


class Databases(dict[str, Database]):
    """What a context carries for the Django ORM: each database by its template's and by its own alias."""

    default: str  # the connection alias that the router answers
    plain = False


class PlainDatabases(Databases):
    """Of a test tenant that lives in the databases of the templates themselves: Django's own handling applies."""

    plain = True

    def __init__(self, default: str) -> None:
        super().__init__()
        self.default = default


class Slot:
    """The tenant connections of one thread.

    ``in_unit`` says that a unit of work is running: then nobody but this thread closes any of
    them. It changes under ``lock``, so a sweeper that holds the lock and sees it false may close.
    """

    __slots__ = ("__weakref__", "_slots", "in_request", "in_unit", "lock", "outer", "settled", "unbound", "wrappers")

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        # Re-entrant: a signal's handler may use a database wherever it interrupts this thread, as Celery beat's does.
        self.lock = threading.RLock()
        self.wrappers: dict[Database, Any] = {}
        self.unbound: dict[str, Any] = {}
        # How many atomic blocks were open, by an explicit alias, when a tenant was bound: they end after it is left.
        self.outer: dict[Database, int] = {}
        self.in_unit = False
        self.in_request = False
        # Up to which of ``Slots.retirements`` all connections have been looked at; -1 since one came or closed. A
        # request that changes nothing walks none of them.
        self.settled = -1

    def begin(self) -> None:
        """A unit of work uses this thread's connections from now on."""
        with self.lock:
            self.in_unit = True

    def end(self) -> None:
        """The unit of work is over: let sweepers in, close what was retired meanwhile, forget what is closed."""
        with self.lock:
            self.in_unit = False  # first: what is retired from now on is for a sweeper to close
            retirements = self._slots.retirements  # before the look: what comes after it is looked at again
            if self.settled != retirements:
                self._close_retired()
                if not _context.testing:  # Django's test runner keeps things on a wrapper
                    self._forget_closed()
                left = any(w.database.retired or w.connection is None for w in list(self.wrappers.values()))
                self.settled = -1 if left else retirements

    def current(self) -> list[Any]:
        """The connections of this thread; those whose settings are no longer current are closed first."""
        if self.settled != self._slots.retirements:
            self.close_unbound()
        return list(self.wrappers.values())

    def in_transactions(self) -> list[Any]:
        """The connections of this thread on which a transaction is open."""
        # A list first: while the thread is idle, a sweeper may take connections away.
        return [wrapper for wrapper in [*self.wrappers.values()] if wrapper.in_atomic_block]

    def close_unbound(self) -> None:
        """Close the retired connections of tenants that are not at work in this thread."""
        with self.lock:
            self._close_retired()

    def _close_retired(self) -> None:
        for wrapper in [wrapper for database, wrapper in list(self.wrappers.items()) if database.retired]:
            if not wrapper.in_atomic_block and not wrapper.is_bound():
                wrapper.retire()
                self.wrappers.pop(wrapper.database, None)

    def _forget_closed(self) -> None:
        """What a thread walks at each request must not grow with the tenants that it has ever served."""
        for wrapper in [wrapper for wrapper in list(self.wrappers.values()) if wrapper.connection is None]:
            if not wrapper.in_atomic_block:
                wrapper.slots.discharge(wrapper)
                self.wrappers.pop(wrapper.database, None)


class Gate(Protocol):
    """Decides which databases a test run may open."""

    def admit(self, database: Database, settings: Mapping[str, Any]) -> None:
        """Raise unless a tenant's database may be opened."""

    def guard(self, wrapper: Any) -> None:
        """Have the connection of a template alias ask before it connects."""


class Slots:
    """All threads' slots, and the number of open connections."""

    def __init__(self, watcher: Callable[[Slot, TenantContext | None, TenantContext | None, bool], None]) -> None:
        self._watcher = watcher  # of the changes of tenant in threads that have a slot
        self.gate: Gate | None = None
        self.retirements = 0  # how often databases were retired
        self._begin()

    def reset(self) -> None:
        """Forget all connections: in a forked child they are the parent's."""
        self._begin()
        _context.watch(None)

    def _begin(self) -> None:
        self._local = threading.local()
        self._all: weakref.WeakSet[Slot] = weakref.WeakSet()
        self._lock = threading.RLock()  # as a slot's
        # Weak, because a thread that ends takes its connections along without closing them.
        self._open: weakref.WeakSet[Any] = weakref.WeakSet()

    def mine(self) -> Slot:
        """This thread's slot."""
        try:
            return self._local.slot  # type: ignore[no-any-return]
        except AttributeError:
            slot = self._local.slot = Slot(self)
            _context.watch(partial(self._watcher, slot))
            with self._lock:
                self._all.add(slot)
            return slot

    def mine_if_any(self) -> Slot | None:
        """This thread's slot, if it has opened anything yet."""
        return self._local.__dict__.get("slot")  # three times as fast as getattr() where there is none

    def sweep(self) -> None:
        """Databases were retired: close the connections of idle threads; a busy thread does it when its unit ends."""
        self.retirements += 1  # first: a thread that is busy below looks at its own afterwards
        for slot in self._slots():
            with _idle(slot, wait=SWEEPER_PATIENCE) as idle:
                for wrapper in list(slot.wrappers.values()) if idle else ():
                    if wrapper.database.retired:
                        _close_from_outside(slot, wrapper)

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

    def _slots(self) -> list[Slot]:
        with self._lock:
            return list(self._all)

    def _evict(self) -> bool:
        """Close the least recently used connection that no unit of work needs; whether there was one."""
        with self._lock:
            oldest_first = sorted(self._open, key=lambda holder: holder.last_used)
        return any(self._close(holder) for holder in oldest_first)

    def _close(self, holder: Any) -> bool:
        if isinstance(holder, Database):
            return self._close_idle_pool(holder)
        slot: Slot | None = holder.home()
        if slot is None:
            return _close_of_the_dead(holder)
        if slot is self.mine_if_any():
            return _close_own(slot, holder)
        with _idle(slot) as idle:
            return idle and _close_from_outside(slot, holder)

    def _close_idle_pool(self, database: Database) -> bool:
        stats = [pool.get_stats() for pool in database.pools.values()]
        if any(stat.get("pool_available", 0) < stat.get("pool_size", 0) for stat in stats):
            return False
        database.close_pools()
        self.discharge(database)
        return True


@contextmanager
def _idle(slot: Slot, wait: float = 0.0) -> Iterator[bool]:
    """Hold a foreign slot's lock if it is to be had within ``wait`` seconds; whether no unit of work runs there."""
    if not slot.lock.acquire(timeout=wait):
        yield False
        return
    try:
        yield not slot.in_unit
    finally:
        slot.lock.release()


def _close_from_outside(slot: Slot, wrapper: Any) -> bool:
    if wrapper.in_atomic_block:
        return False
    with _shared(wrapper):
        wrapper.retire()
    return _let_go(slot, wrapper)


def _close_of_the_dead(wrapper: Any) -> bool:
    """Close what a thread that has ended left open, also in the middle of a transaction."""
    with _shared(wrapper):
        wrapper.abandon()
    return True


def _close_own(slot: Slot, wrapper: Any) -> bool:
    """Make room by closing one of this thread's own connections, if its tenant is not at work here."""
    if wrapper.in_atomic_block or wrapper.is_bound():
        return False
    wrapper.retire()
    return _let_go(slot, wrapper)


def _let_go(slot: Slot, wrapper: Any) -> bool:
    database = wrapper.database
    if slot.wrappers.get(database) is wrapper:
        del slot.wrappers[database]
    return True


@contextmanager
def _shared(wrapper: Any) -> Iterator[None]:
    wrapper.inc_thread_sharing()
    try:
        yield
    finally:
        wrapper.dec_thread_sharing()


def _weight(holder: Any) -> int:
    if not isinstance(holder, Database):
        return 1
    options = holder.settings["OPTIONS"].get("pool")
    options = options if isinstance(options, dict) else {}
    # psycopg_pool.ConnectionPool: min_size is 4 by default, and max_size is min_size unless given
    return int(options.get("max_size") or options.get("min_size", 4))
