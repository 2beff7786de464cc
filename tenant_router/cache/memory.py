"""Entries of local-memory caches: each tenant's apart, so that a busy one pushes out its own only, and bounded in all.

Django keeps the entries of one location together and culls whichever come first. Here each
tenant has a memory of its own at each location, which Django's ``MAX_ENTRIES`` and culling
bound; where all tenants' become too many, those of the tenant that was longest unused go.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from threading import Lock
from typing import Any
from weakref import WeakValueDictionary

from django.core.cache.backends.base import DEFAULT_TIMEOUT
from django.core.cache.backends.locmem import LocMemCache

IN_ALL = 100  # times the highest MAX_ENTRIES: so many entries do all tenants have in one process
LOW, HIGH = 0.8, 0.9  # shares of that: above HIGH entries go until LOW is reached, so that counting is rare


class Memory:
    """What one tenant keeps at one location: the three things that Django's backend works on."""

    __slots__ = ("__weakref__", "entries", "expire_info", "lock")

    def __init__(self) -> None:
        self.entries: OrderedDict[str, bytes] = OrderedDict()
        self.expire_info: dict[str, float | None] = {}
        self.lock = Lock()

    def clear(self) -> None:
        """Forget everything."""
        with self.lock:
            self.entries.clear()
            self.expire_info.clear()


class Memories:
    """All tenants' memories in this process, by location and tenant."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin anew. In a forked child: a thread of the parent may have held any of the locks."""
        self._lock = Lock()
        self._recent: OrderedDict[Any, Memory] = OrderedDict()  # the longest unused first
        # What a backend still holds, though it was longest unused: a second memory beside it would hide its writes.
        self._held: WeakValueDictionary[Any, Memory] = WeakValueDictionary()
        self._count = 0  # at least as many as there are: what is deleted or written again is not subtracted
        self._limit = 0

    def find(self, where: Any, max_entries: int) -> Memory:
        """The memory of ``where``, a location and a tenant, which may have ``max_entries``."""
        with self._lock:
            memory = self._held.get(where)
            if memory is None:
                memory = self._held[where] = Memory()
            self._limit = max(self._limit, IN_ALL * max_entries)
            self._use(where, memory)
            return memory

    def used(self, where: Any, memory: Memory) -> None:
        """A unit of work begins to use ``memory``."""
        with self._lock:
            self._use(where, memory)

    def grew(self, where: Any, memory: Memory) -> None:
        """An entry was written into ``memory``: make room if all tenants have too many."""
        with self._lock:
            self._use(where, memory)
            self._count += 1
            unused = self._take_unused() if self._count > self._limit else []
        for each in unused:  # not under our lock: its own is held while its tenant writes
            each.clear()

    def _use(self, where: Any, memory: Memory) -> None:
        self._recent[where] = memory
        self._recent.move_to_end(where)

    def _take_unused(self) -> list[Memory]:
        taken: list[Memory] = []
        self._count = sum(len(memory.entries) for memory in self._recent.values())
        if self._count > HIGH * self._limit:
            while self._count > LOW * self._limit and len(self._recent) > 1:
                taken.append(self._recent.popitem(last=False)[1])
                self._count -= len(taken[-1].entries)
        return taken


memories = Memories()
os.register_at_fork(after_in_child=memories.forget)


class OwnMemory(LocMemCache):
    """Mixed into a local-memory backend: it works on its tenant's memory."""

    def attach(self, location: Any, token: str) -> None:
        """Work on what the tenant ``token`` keeps at ``location``."""
        own: Any = self
        self._where = (location, token)
        self._memory = memories.find(self._where, own._max_entries)
        # The attributes that all of Django's methods use (backends/locmem.py).
        own._cache, own._expire_info, own._lock = self._memory.entries, self._memory.expire_info, self._memory.lock

    def begin_use(self) -> None:
        """A unit of work begins to use it."""
        memories.used(self._where, self._memory)

    def add(self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None) -> bool:
        """As Django's."""
        added = super().add(key, value, timeout, version)
        memories.grew(self._where, self._memory)
        return added

    def set(self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None) -> None:
        """As Django's."""
        super().set(key, value, timeout, version)
        memories.grew(self._where, self._memory)
