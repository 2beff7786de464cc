"""The open cache backends of each thread, who uses them, and when they are closed.

A backend belongs to one thread and is lent to one unit of work at a time, because some clients
bear no other use: two requests of one event loop have two. While its unit lives nobody closes
it. Then it rests: the least recently used one makes room when more than ``MAX_OPEN_CACHES`` are
open in the process, and one whose settings were replaced is closed at once.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from tenant_router import unit_of_work as units
from tenant_router.cache.entries import Cache
from tenant_router.janitor import Janitor, in_event_loop
from tenant_router.unit_of_work import Unit

if TYPE_CHECKING:
    from django.core.cache.backends.base import BaseCache

logger = logging.getLogger(__name__)


class Made(NamedTuple):
    """A new backend. ``has_sockets``: it may hold connections of its own. ``disconnect`` closes what is its own.

    ``closes``: its ``close()`` does something, as Memcached's does at the end of each request.
    """

    backend: BaseCache
    disconnect: Callable[[], None] | None
    has_sockets: bool
    closes: bool


class _Shelf:
    """Backends of one sort, in all threads: how many are open, and those that rest, the least recently used first."""

    __slots__ = ("count", "resting")

    def __init__(self) -> None:
        self.count = 0
        self.resting: OrderedDict[OpenCache, None] = OrderedDict()


class OpenCache:
    """One open backend: a resource of units of work."""

    __slots__ = ("backend", "entry", "home", "key", "made", "owner", "shelf", "tenant_id", "thread", "unit")
    in_atomic_block = False

    def __init__(self, made: Made, entry: Cache, home: ThreadCaches, owner: OpenCaches) -> None:
        self.made, self.backend, self.entry, self.owner = made, made.backend, entry, owner
        self.tenant_id = entry.tenant_id
        self.home, self.thread = weakref.ref(home), threading.get_ident()
        self.shelf: _Shelf | None = owner.with_sockets if made.has_sockets else owner.without
        self.unit: Callable[[], Unit | None] = _nobody
        self.key: tuple[Cache, int] = (entry, 0)

    def left_by(self, unit: Unit) -> None:
        """``unit`` uses this no longer."""
        self.owner.left(self, closes=unit.closes and unit.over)

    def may_rest(self) -> bool:
        """A cache has nothing half done."""
        return True

    def is_abandoned(self) -> None:
        """The unit that used it became garbage."""
        self.owner.janitor.do_if_running(units.release_abandoned)

    def replaced(self) -> None:
        """Its settings were replaced."""
        self.owner.replaced(self)


def _nobody() -> None:
    return None


class ThreadCaches:
    """Those of one thread: ``lent`` by entry and id of the unit, ``resting`` by entry.

    ``clients``: backends whose client tenants share, by template alias.
    """

    __slots__ = ("__weakref__", "clients", "lent", "owner", "resting")

    def __init__(self, owner: OpenCaches) -> None:
        self.owner = owner
        self.clients: dict[str, Made] = {}
        self.lent: dict[tuple[Cache, int], OpenCache] = {}
        self.resting: dict[Cache, list[OpenCache]] = {}

    def all(self) -> Iterator[OpenCache]:
        """Every open backend of this thread."""
        yield from [*self.lent.values()]
        for each in [*self.resting.values()]:
            yield from [*each]

    def __del__(self) -> None:
        # The thread is dead: nobody can use these any more, whatever unit of work they belong to.
        self.owner.forsake(self)


class OpenCaches:
    """All threads' backends. At most ``limit`` with sockets rest or are used, and as many without."""

    def __init__(self, limit: int, janitor: Janitor) -> None:
        self._limit, self.janitor = limit, janitor
        self._lock = threading.Lock()
        self.with_sockets, self.without = _Shelf(), _Shelf()
        self.forsaken = False  # in a forked child: all of it is the parent's

    def borrow(self, mine: ThreadCaches, entry: Cache, unit: Unit, make: Callable[[], Made]) -> OpenCache | None:
        """A backend of ``entry`` for ``unit`` in this thread; ``None`` if the unit has ended meanwhile."""
        cache = self._take_resting(mine, entry, unit) or self._open(mine, entry, unit, make)
        return cache if unit.use(cache) else None

    def left(self, cache: OpenCache, closes: bool) -> None:
        """Its unit uses ``cache`` no longer. ``closes``: a request or task ended, at which Django closes caches."""
        here = cache.thread == threading.get_ident()
        # A client that is shared serves other units of its thread: only that thread closes it.
        closes = closes and cache.made.closes and (here or cache.made.disconnect is not None)
        with self._lock:
            if cache.shelf is None:
                return  # its thread is dead
            unwanted = None if closes and not cache.entry.retired else self._rest(cache)
        if unwanted is not None:
            self._close(unwanted, here)
        elif here and not in_event_loop():
            self._close_and_rest(cache)
        else:
            self.janitor.do(partial(self._close_and_rest, cache))  # until then it is nobody else's

    def replaced(self, cache: OpenCache) -> None:
        """The settings of ``cache`` were replaced: close it if it rests."""
        with self._lock:
            if cache.shelf is None:
                return
            rests = cache in cache.shelf.resting
            if rests:
                self._drop(cache)
        if rests:
            self._close([cache], here=False)
        elif cache.made.has_sockets:
            self.janitor.do(units.release_abandoned)  # its unit may be garbage, or become it: then a thread is there

    def forsake(self, mine: ThreadCaches) -> None:
        """The thread of ``mine`` is dead."""
        if self.forsaken:
            return
        with self._lock:
            caches = [cache for cache in mine.all() if cache.shelf is not None]
            for cache in caches:
                self._drop(cache)
        self._close(caches, here=True)
        for client in mine.clients.values():
            _do(client.disconnect)

    # --- inside ---

    def _take_resting(self, mine: ThreadCaches, entry: Cache, unit: Unit) -> OpenCache | None:
        with self._lock:
            resting = mine.resting.get(entry)
            if not resting:
                return None
            cache = resting.pop()
            if not resting:
                del mine.resting[entry]
            if cache.shelf is not None:
                cache.shelf.resting.pop(cache, None)
            _lend(mine, cache, unit)
        begin_use = getattr(cache.backend, "begin_use", None)
        if begin_use is not None:
            begin_use()
        return cache

    def _open(self, mine: ThreadCaches, entry: Cache, unit: Unit, make: Callable[[], Made]) -> OpenCache:
        units.release_abandoned()
        cache = OpenCache(make(), entry, mine, self)
        with self._lock:
            shelf: Any = cache.shelf
            shelf.count += 1
            entry.opened.add(cache)
            _lend(mine, cache, unit)
            surplus = self._surplus(shelf)
        self._close(surplus, here=True)
        return cache

    def _close_and_rest(self, cache: OpenCache) -> None:
        _do(cache.backend.close)
        with self._lock:
            unwanted = self._rest(cache) if cache.shelf is not None else []
        self._close(unwanted, here=True)

    def _rest(self, cache: OpenCache) -> list[OpenCache]:
        """Under the lock: nobody uses ``cache``; what is to be closed by that."""
        mine, shelf = cache.home(), cache.shelf
        if cache.entry.retired or mine is None or shelf is None:
            self._drop(cache)
            return [cache]
        _take_back(mine, cache)
        mine.resting.setdefault(cache.entry, []).append(cache)
        shelf.resting[cache] = None
        return self._surplus(shelf)

    def _surplus(self, shelf: _Shelf) -> list[OpenCache]:
        surplus = []
        while shelf.count > self._limit and shelf.resting:
            surplus.append(next(iter(shelf.resting)))
            self._drop(surplus[-1])
        return surplus

    def _drop(self, cache: OpenCache) -> None:
        """Under the lock: it is open no longer. Who calls this closes it."""
        mine, shelf = cache.home(), cache.shelf
        if shelf is not None:
            shelf.count -= 1
            shelf.resting.pop(cache, None)
        cache.shelf = None
        cache.entry.opened.discard(cache)
        if mine is not None:
            _take_back(mine, cache)
            resting = mine.resting.get(cache.entry, [])
            if cache in resting:
                resting.remove(cache)
                if not resting:
                    del mine.resting[cache.entry]

    def _close(self, caches: Iterable[OpenCache], here: bool) -> None:
        """Outside of the lock. ``here``: in this thread, unless an event loop runs in it."""
        for cache in caches:
            if cache.made.disconnect is None:
                continue
            if here and not in_event_loop():
                _do(cache.made.disconnect)
            else:
                self.janitor.do(partial(_do, cache.made.disconnect))


def _lend(mine: ThreadCaches, cache: OpenCache, unit: Unit) -> None:
    cache.unit, cache.key = weakref.ref(unit), (cache.entry, id(unit))
    mine.lent[cache.key] = cache


def _take_back(mine: ThreadCaches, cache: OpenCache) -> None:
    cache.unit = _nobody
    if mine.lent.get(cache.key) is cache:
        del mine.lent[cache.key]


def _do(close: Callable[[], Any] | None) -> None:
    """A project's own backend may raise what it likes: nobody's request is at fault."""
    if close is not None:
        try:
            close()
        except Exception:
            logger.exception("closing a cache failed")
