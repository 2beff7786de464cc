"""The open connections of each thread, and who may close them.

Django keeps a thread's connections in an asgiref ``Local``, which turns into a context
variable inside an event loop and is slow to ask for what is not there. Tenants' connections
live in an own thread-local instead, keyed by the database entry, which is one alias at one
revision: two revisions may meet in one thread.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol

from tenant_router import context as _context
from tenant_router.context import TenantContext
from tenant_router.orm_backends.django_orm.budget import Budget
from tenant_router.orm_backends.django_orm.databases import Database

SWEEPER_PATIENCE = 1.0  # seconds that a sweeper waits for a thread that is closing connections itself


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
                wrapper.slots.budget.discharge(wrapper)
                self.wrappers.pop(wrapper.database, None)


class Gate(Protocol):
    """Decides which databases a test run may open."""

    def admit(self, database: Database, settings: Mapping[str, Any]) -> None:
        """Raise unless a tenant's database may be opened."""

    def guard(self, wrapper: Any) -> None:
        """Have the connection of a template alias ask before it connects."""


class Slots:
    """All threads' slots, and the budget of their connections."""

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
        self.budget = Budget(self._close)

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

    def _slots(self) -> list[Slot]:
        with self._lock:
            return list(self._all)

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
        self.budget.discharge(database)
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
