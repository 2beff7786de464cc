"""The open connections of each thread, who uses them, and who may close them.

Django keeps a thread's connections in an asgiref ``Local``, which turns into a context
variable inside an event loop and is slow to ask for what is not there. Tenants' connections
live in an own thread-local instance instead, keyed by the database entry, which is one alias at
one revision: two revisions may meet in one thread.

A wrapper is in use while a living unit of work has used it, in whichever thread that unit ends;
nobody closes it before. When the last of its units ends, its physical connection rests: it may
make room for others, and it is closed at once if its settings were replaced meanwhile.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from time import monotonic
from typing import Any, Protocol

from tenant_router import context as _context
from tenant_router import unit_of_work as units
from tenant_router.janitor import SWEEP_GAP, Janitor, in_event_loop
from tenant_router.orm_backends.budget import Budget
from tenant_router.orm_backends.django_orm.databases import Database
from tenant_router.orm_backends.django_orm.physical import PhysicalConnection
from tenant_router.tenant_context import TenantContext
from tenant_router.unit_of_work import Unit

ALLOWS_MORE = "OPTIONS['MAX_OPEN_CONNECTIONS'] of 'django_orm'"


class ThreadConnections:
    """The tenant connections of one thread: ``wrappers`` by database, and ``unbound`` ones by template alias.

    ``by_alias``: those that an explicit alias named while nothing was bound, as far as a transaction is open on them.
    ``outer``: how many atomic blocks of these were open when a tenant was bound: they end after it is left.
    """

    __slots__ = ("__weakref__", "_forsaken", "by_alias", "outer", "unbound", "wrappers")

    def __init__(self, forsaken: Callable[[Iterable[Any]], None]) -> None:
        self._forsaken = forsaken
        self.wrappers: dict[Database, Any] = {}
        self.unbound: dict[str, Any] = {}
        self.by_alias: list[Any] = []
        self.outer: dict[Database, int] = {}

    def named_by_alias(self, wrapper: Any) -> None:
        """An explicit alias has named ``wrapper``: it may begin a transaction."""
        self.by_alias = [each for each in self.by_alias if each.in_atomic_block and each is not wrapper]
        self.by_alias.append(wrapper)

    def in_transaction(self, alias: str) -> Any:
        """The connection of a transaction that was begun by an alias alone: it ends where it began."""
        for wrapper in self.by_alias:
            if wrapper.alias == alias and wrapper.in_atomic_block:
                return wrapper
        return None

    def in_use(self, unit: Unit | None) -> Iterator[Any]:
        """The connections of this thread that ``unit`` uses."""
        if unit is not None and unit.uses:
            for resource in [*unit.uses]:
                home = getattr(resource, "home", None)  # clients of other stores are no thread's
                if isinstance(home, weakref.ref) and home() is self:
                    yield resource

    def __del__(self) -> None:
        # The thread is dead: nobody can use these any more, whatever unit of work they belong to.
        if self.wrappers:
            self._forsaken(self.wrappers.values())


class DatabaseGuard(Protocol):
    """Decides which databases a test run may open."""

    def admit(self, database: Database, settings: Mapping[str, Any]) -> None:
        """Raise unless a tenant's database may be opened."""

    def guard(self, wrapper: Any) -> None:
        """Have the connection of a template alias ask before it connects."""


Watcher = Callable[[ThreadConnections, "Unit | None", "TenantContext | None", "TenantContext | None", bool], None]


class OpenConnections:
    """All threads' connections, and the budget of them.

    ``limit``: how many may be open. ``watcher``: told of the changes of tenant in threads that have connections.
    """

    def __init__(self, limit: int, watcher: Watcher) -> None:
        self._limit, self._watcher = limit, watcher
        self.database_guard: DatabaseGuard | None = None
        self.janitor = Janitor(self._close_obsolete)
        self._begin()

    def reset_after_fork(self) -> None:
        """Forget all connections: in a forked child they are the parent's."""
        self.budget.forsaken = True
        self.janitor.reset_after_fork()
        self._begin()

    def _begin(self) -> None:
        self._local = threading.local()
        self.budget: Budget[PhysicalConnection] = Budget(
            self._limit, "tenant connections", "OPTIONS['MAX_OPEN_CONNECTIONS'] of 'django_orm'"
        )

    def mine(self) -> ThreadConnections:
        """Those of this thread."""
        try:
            return self._local.own  # type: ignore[no-any-return]
        except AttributeError:
            own = self._local.own = ThreadConnections(partial(_close_forsaken, self.budget))
            _context.watch(partial(self._watcher, own))
            return own

    def mine_if_any(self) -> ThreadConnections | None:
        """Those of this thread, if it has opened anything yet."""
        return self._local.__dict__.get("own")  # three times as fast as getattr() where there is none

    # --- who uses what ---

    def use(self, wrapper: Any, unit: Unit) -> bool:
        """``unit`` uses ``wrapper`` from now on: nobody else closes it. ``False`` if the unit has ended meanwhile."""
        if not hasattr(wrapper, "left_by"):
            return True  # something that a test has put in its place
        with self.budget.lock:
            wrapper.users += 1
            if wrapper.physical is not None:
                self.budget.idle.pop(wrapper.physical, None)
        return unit.use(wrapper)

    def left(self, wrapper: Any, closes: bool) -> None:
        """One unit uses ``wrapper`` no longer. ``closes``: what is older than ``CONN_MAX_AGE`` is closed."""
        with self.budget.lock:
            wrapper.users -= 1
            if wrapper.users:
                return
            if wrapper.connection is None:
                self._gone(wrapper)
                wrapper.forget()
                return
            if wrapper.physical is None:
                return  # a database in memory, which lives in its connection
            if not wrapper.must_close(closes):
                self._rest(wrapper.physical)
                return
        if wrapper.home() is self.mine_if_any() and not in_event_loop():
            self._close_own(wrapper)
        else:
            self.janitor.do(partial(self._close_foreign, wrapper))

    def opened(self, wrapper: Any) -> None:
        """``wrapper`` has connected."""
        with self.budget.lock:
            if wrapper.physical is None:
                return  # a database in memory, which goes with its thread
            wrapper.database.borrowers.add(wrapper)
            if not wrapper.users:
                self._rest(wrapper.physical)

    def closed(self, wrapper: Any) -> None:
        """``wrapper`` has closed its connection."""
        with self.budget.lock:
            self._gone(wrapper)

    def retire(self, databases: Iterable[Database]) -> None:
        """Databases were replaced: close what rests; what is in use is closed when its last unit ends. No I/O here."""
        reclaimed: list[Callable[[], None]] = []
        used = False
        with self.budget.lock:
            for database in databases:
                database.retired = True
                used = used or bool(database.borrowers)
                for wrapper in [*database.borrowers]:
                    physical = wrapper.physical
                    if physical is not None and physical.reclaim():
                        self.budget.idle.pop(physical, None)
                        reclaimed.append(physical.close)
                if database.pool is not None or database.pools:  # no pool is made for what is retired
                    reclaimed.append(database.close_pools)
        if used:  # of a burst of changes most are of tenants that nobody uses here
            self.janitor.do(units.release_abandoned)  # a stream that was never closed may hold one of them
        for close in reclaimed:
            self.janitor.do(close)

    # --- inside ---

    def _rest(self, physical: PhysicalConnection | None) -> None:
        if physical is not None:
            self.budget.rest(physical)
            until = physical.idle_until()
            if until is not None:
                self.janitor.look_at(max(until, monotonic() + SWEEP_GAP))

    def _gone(self, wrapper: Any) -> None:
        physical, wrapper.physical = wrapper.physical, None
        wrapper.database.borrowers.discard(wrapper)
        if physical is not None:
            self.budget.closed(physical)

    def _close_own(self, wrapper: Any) -> None:
        """In the wrapper's own thread, where nothing else of it can run."""
        if wrapper.in_atomic_block:
            self._rest_if_unused(wrapper)
        else:
            wrapper.close()
            wrapper.forget()

    def _close_foreign(self, wrapper: Any) -> None:
        with self.budget.lock:
            physical = wrapper.physical
            if physical is None or not physical.reclaim():
                self._rest_if_unused(wrapper)
                return
        physical.close()

    def _rest_if_unused(self, wrapper: Any) -> None:
        """Something is half done on it, which nobody tells the end of: the janitor looks again."""
        with self.budget.lock:
            if not wrapper.users:
                self._rest(wrapper.physical)

    def _close_obsolete(self) -> float | None:
        """Close what rests for longer than ``CONN_MAX_AGE``; when to look again."""
        now, following, reclaimed = monotonic(), None, []
        with self.budget.lock:
            for physical in [*self.budget.idle]:
                until = physical.idle_until()
                if until is not None and until <= now and physical.reclaim():
                    self.budget.idle.pop(physical)
                    reclaimed.append(physical)
                elif until is not None:
                    following = until if following is None else min(until, following)
        for physical in reclaimed:
            physical.close()
        return following


def _close_forsaken(budget: Budget[PhysicalConnection], wrappers: Iterable[Any]) -> None:
    if budget.forsaken:
        return  # the parent's, in a forked child
    for wrapper in [*wrappers]:
        with budget.lock:
            physical, connection = wrapper.physical, wrapper.connection
            if physical is not None:
                budget.idle.pop(physical, None)
        if physical is not None and connection is not None:
            physical.close()
