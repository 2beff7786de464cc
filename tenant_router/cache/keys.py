"""The tenant's part of a cache key: always there, also where tenants have locations of their own."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from typing import Any

from tenant_router import context as _context

KeyFunction = Callable[[str, str, Any], str]
_GENERATION = "tenant_router.generation"


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


class GenerationKey(TenantKey):
    """A :class:`TenantKey` for backends that cannot delete by prefix: a generation number is part of each key.

    The number lives in the cache itself and is read once per unit of work; it is random, so
    losing it never brings older entries back.
    """

    def __init__(self, tenant_token: str, inner: KeyFunction, backend: Any) -> None:
        super().__init__(tenant_token, inner)
        self._backend = backend
        self._read: tuple[_context.Stack, str] | None = None

    def __call__(self, key: str, key_prefix: str, version: Any) -> str:
        """The key as it is stored."""
        if key == _GENERATION:
            return self.prefix + _GENERATION
        return f"{self.prefix}{self._generation()}:{self.inner(key, key_prefix, version)}"

    def enforce(self, key: str, made: str) -> str:
        """The key as it is stored, where a backend's own ``make_key`` made ``made`` of ``key``."""
        if key == _GENERATION:
            return self.prefix + _GENERATION
        prefix = f"{self.prefix}{self._generation()}:"
        return made if made.startswith(prefix) else prefix + made

    def advance(self) -> None:
        """Begin a new generation: everything stored before is unreachable."""
        self._backend.set(_GENERATION, secrets.token_hex(4), timeout=None)
        self._read = None

    def _generation(self) -> str:
        # Looked at once: Django's asynchronous methods use one backend from several threads.
        unit, read = _context.stack.get(), self._read
        if read is None or read[0] is not unit:
            self._backend.add(_GENERATION, secrets.token_hex(4), timeout=None)
            # The default covers a cache that stores nothing.
            read = self._read = (unit, str(self._backend.get(_GENERATION, "0")))
        return read[1]
