"""The tenant's part of a cache key: always there, also where tenants have locations of their own."""

from __future__ import annotations

import hashlib
import secrets
import time
import weakref
from collections.abc import Callable
from typing import Any, Protocol

from tenant_router import context as _context
from tenant_router.unit_of_work import Unit

KeyFunction = Callable[[str, str, Any], str]
_GENERATION = "tenant_router.generation"
_DIGITS = 16  # of a time in nanoseconds, in hexadecimal
COPIES = 16  # of a generation over several nodes: that all are on one of two has a chance of 1 in 30,000


def token(tenant_id: str) -> str:
    """The tenant in a key: its id up to 40 characters, else a hash of 16 hex digits (Memcached's keys end at 250)."""
    if len(tenant_id) <= 40:
        return tenant_id
    # No id begins with "~", so a hash is never taken for one.
    return "~" + hashlib.blake2b(tenant_id.encode(), digest_size=8).hexdigest()


class TenantKey:
    """A ``KEY_FUNCTION`` that puts the tenant before what the project's own function makes."""

    def __init__(self, tenant_token: str, inner: KeyFunction) -> None:
        self.prefix = f"{tenant_token}:"
        self.inner = inner

    def __call__(self, key: str, key_prefix: str, version: Any) -> str:
        """The key as it is stored."""
        return self.prefix + self.inner(key, key_prefix, version)

    def enforce(self, key: str, made: str) -> str:
        """The key as it is stored, where a backend's own ``make_key`` made ``made`` of ``key``."""
        return made if made.startswith(self.prefix) else self.prefix + made


class Known(Protocol):
    """What this process knows of a tenant's cache."""

    newest: str  # the newest generation that was read or begun; none older is ever used


class GenerationKey(TenantKey):
    """A :class:`TenantKey` for backends that cannot delete by prefix: a generation is part of each key.

    It lives in the cache itself and is read once per unit of work. Generations are ordered by
    time, and the newest counts: what was cleared while a node was away stays cleared when the
    node comes back with what it had. So with several nodes there are copies, spread over them;
    and where there is one, this process begins the generation again that it could not write.
    """

    def __init__(self, tenant_token: str, inner: KeyFunction, backend: Any, known: Known) -> None:
        super().__init__(tenant_token, inner)
        self._backend, self._known = backend, known
        several = len(getattr(backend, "_servers", ())) > 1  # django/core/cache/backends/memcached.py
        self._names = [_GENERATION, *(f"{_GENERATION}.{number}" for number in range(1, COPIES if several else 1))]
        self._read: tuple[weakref.ref[Unit], str] | None = None  # a unit must be able to become garbage

    def __call__(self, key: str, key_prefix: str, version: Any) -> str:
        """The key as it is stored."""
        if key in self._names:
            return self.prefix + key
        return f"{self.prefix}{self._generation()}:{self.inner(key, key_prefix, version)}"

    def enforce(self, key: str, made: str) -> str:
        """The key as it is stored, where a backend's own ``make_key`` made ``made`` of ``key``."""
        if key in self._names:
            return self.prefix + key
        prefix = f"{self.prefix}{self._generation()}:"
        return made if made.startswith(prefix) else prefix + made

    def advance(self) -> None:
        """Begin a new generation: everything stored before is unreachable, also if it cannot be written now."""
        self._read = None
        self._known.newest = _later_than(max(self._known.newest, *self._stored().values(), ""))
        self._write(self._known.newest, self._names)

    def _generation(self) -> str:
        # Looked at once: Django's asynchronous methods use one backend from several threads.
        bound, read = _context.stack.get(), self._read
        if read is None or not bound or read[0]() is not bound[0]:
            generation = self._current()
            self._read = (weakref.ref(bound[0]), generation) if bound else None
            return generation
        return read[1]

    def _current(self) -> str:
        stored = self._stored()
        if not stored:
            return self._begin()
        newest = self._known.newest = max(self._known.newest, *stored.values(), "")
        self._write(newest, [name for name in self._names if stored.get(name) != newest])
        return newest

    def _begin(self) -> str:
        """The first generation, or one after all copies were lost: whoever comes first chooses it."""
        chosen = _later_than(self._known.newest)
        added = [self._backend.add(name, chosen, timeout=None) for name in self._names]
        return chosen if all(added) else max(self._stored().values(), default=chosen)

    def _stored(self) -> dict[str, str]:
        if len(self._names) > 1:
            return dict(self._backend.get_many(self._names))
        found = self._backend.get(_GENERATION, None)
        return {} if found is None else {_GENERATION: str(found)}

    def _write(self, generation: str, names: list[str]) -> None:
        for name in names:
            self._backend.set(name, generation, timeout=None)


def _later_than(generation: str) -> str:
    """A generation that sorts behind ``generation``, whatever this machine's clock says, and is no other process's."""
    earliest = int(generation[:_DIGITS], 16) + 1 if generation else 0
    return f"{max(time.time_ns(), earliest):0{_DIGITS}x}{secrets.token_hex(3)}"
