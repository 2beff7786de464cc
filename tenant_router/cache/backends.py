"""Django's cache backends, each made one tenant's: its keys, and a ``clear()`` that reaches only them."""

from __future__ import annotations

import copy
import os
from functools import cache
from itertools import islice
from typing import Any, Protocol, cast

from django.core.cache.backends.base import BaseCache, InvalidCacheBackendError
from django.core.cache.backends.db import DatabaseCache
from django.core.cache.backends.dummy import DummyCache
from django.core.cache.backends.filebased import FileBasedCache
from django.core.cache.backends.locmem import LocMemCache
from django.core.cache.backends.memcached import BaseMemcachedCache
from django.core.cache.backends.redis import RedisCache
from django.db import connections, router
from django.utils.module_loading import import_string

from tenant_router.cache.keys import GenerationKey, Known, TenantKey

PAGE = 1_000  # keys of one UNLINK


class _LocMem(LocMemCache):
    def clear(self) -> None:
        own: Any = self
        with own._lock:
            for key in [key for key in own._cache if key.startswith(_prefix(self))]:
                own._delete(key)


class _Database(DatabaseCache):
    def clear(self) -> None:
        connection = connections[router.db_for_write(self.cache_model_class)]
        table = connection.ops.quote_name(self._table)  # type: ignore[attr-defined]
        # An own escape character, because databases differ in what a backslash means in LIKE.
        prefix = _prefix(self)
        for special in "!%_":
            prefix = prefix.replace(special, f"!{special}")
        with connection.cursor() as cursor:
            cursor.execute(f"DELETE FROM {table} WHERE cache_key LIKE %s ESCAPE '!'", [f"{prefix}%"])


class _Redis(RedisCache):
    def clear(self) -> bool:  # type: ignore[override]
        client = self._cache.get_client(None, write=True)
        found = client.scan_iter(match=f"{_prefix(self)}*", count=PAGE)
        while page := list(islice(found, PAGE)):
            client.unlink(*page)
        return True


class _ByGeneration(BaseCache):
    def clear(self) -> None:
        cast(GenerationKey, self.key_func).advance()


class _OwnKeys(BaseCache):
    """For a backend with a ``make_key`` of its own, which may never ask ``key_func``."""

    def make_key(self, key: Any, version: Any = None) -> str:
        return cast(TenantKey, self.key_func).enforce(key, super().make_key(key, version))


def _prefix(made: BaseCache) -> str:
    return cast(TenantKey, made.key_func).prefix


_BY_PREFIX: dict[type[BaseCache], type[BaseCache]] = {
    LocMemCache: _LocMem,
    DatabaseCache: _Database,
    RedisCache: _Redis,
}


class Entry(Known, Protocol):
    """One tenant's cache, as the manager has prepared it."""

    backend: str
    location: Any
    params: dict[str, Any]
    token: str  # the tenant's part of each key


def make(entry: Entry) -> BaseCache:
    """Create the backend of a tenant."""
    backend, location, params, token = entry.backend, entry.location, entry.params, entry.token
    own = _import(backend)
    if issubclass(own, FileBasedCache):
        location = os.path.join(location, token)
    made = cast(BaseCache, _tenant_class(own)(location, dict(params)))  # a copy: some backends pop from it
    return _give_keys(made, entry)


def share(base: BaseCache, entry: Entry) -> BaseCache:
    """A twin of ``base`` for another tenant, over the same client and so the same sockets."""
    base._cache  # type: ignore[attr-defined]  # noqa: B018 - Django makes the client at this access; made now, the copies share it
    return _give_keys(copy.copy(base), entry)


def can_share(backend: str) -> bool:
    """Whether tenants with one location may share the client: Django's own backends remember no key, others may."""
    own = _import(backend)
    return issubclass(own, RedisCache | BaseMemcachedCache) and own.__module__.startswith("django.")


def _give_keys(made: BaseCache, entry: Entry) -> BaseCache:
    inner = made.key_func
    while isinstance(inner, TenantKey):
        inner = inner.inner
    by_generation = isinstance(made, _ByGeneration)
    made.key_func = GenerationKey(entry.token, inner, made, entry) if by_generation else TenantKey(entry.token, inner)
    return made


@cache
def _tenant_class(own: Any) -> Any:
    made = _clearing(own)
    own_keys = own.make_key is not BaseCache.make_key
    return type(own.__name__, (_OwnKeys, made), {}) if own_keys else made


def _clearing(own: Any) -> Any:
    if issubclass(own, DummyCache | FileBasedCache):
        return own
    for plain, tenants in _BY_PREFIX.items():
        # Only where clear() is Django's: a subclass with a clear() of its own is cleared by generation.
        if issubclass(own, plain) and own.clear is plain.clear:
            return tenants if own is plain else type(own.__name__, (_only_clear(tenants), own), {})
    return type(own.__name__, (_ByGeneration, own), {})


def _only_clear(tenants: type[BaseCache]) -> type:
    return type("TenantClear", (), {"clear": tenants.clear})


def _import(backend: str) -> Any:
    try:
        return import_string(backend)
    except ImportError as error:
        raise InvalidCacheBackendError(f"Could not find backend {backend!r}: {error}") from error
