"""Django's cache backends, each made one tenant's: its keys, and a ``clear()`` that reaches only them."""

from __future__ import annotations

import copy
import os
from functools import cache, partial
from itertools import islice
from typing import Any, cast

from django.core.cache.backends.base import BaseCache, InvalidCacheBackendError
from django.core.cache.backends.db import DatabaseCache
from django.core.cache.backends.dummy import DummyCache
from django.core.cache.backends.filebased import FileBasedCache
from django.core.cache.backends.locmem import LocMemCache
from django.core.cache.backends.memcached import BaseMemcachedCache
from django.core.cache.backends.redis import RedisCache
from django.db import connections, router
from django.utils.module_loading import import_string

from tenant_router.cache.entries import Cache
from tenant_router.cache.keys import GenerationKey, TenantKey
from tenant_router.cache.memory import OwnMemory
from tenant_router.cache.open_caches import Made
from tenant_router.janitor import in_event_loop

PAGE = 1_000  # keys of one UNLINK


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


_BY_PREFIX: dict[type[BaseCache], type[BaseCache]] = {DatabaseCache: _Database, RedisCache: _Redis}
_WITHOUT_SOCKETS = LocMemCache | DatabaseCache | FileBasedCache | DummyCache


def make(entry: Cache) -> Made:
    """Create the backend of a tenant."""
    own, location, token = _import(entry.backend), entry.location, entry.token
    place = os.path.join(location, token) if issubclass(own, FileBasedCache) else location
    made = cast(BaseCache, _tenant_class(own)(place, dict(entry.params)))  # a copy: some backends pop from it
    if isinstance(made, OwnMemory):
        made.attach(location if isinstance(location, str) else repr(location), token)
    closes = own.close is not BaseCache.close
    has_sockets = not issubclass(own, _WITHOUT_SOCKETS)
    disconnect = partial(_disconnect, made) if has_sockets or closes else None
    return Made(_give_keys(made, entry), disconnect, has_sockets, closes)


def share(base: Made, entry: Cache) -> Made:
    """A twin of ``base`` for another tenant, over the same client and so the same sockets."""
    base.backend._cache  # type: ignore[attr-defined]  # noqa: B018 - Django makes the client at this access; made now, the copies share it
    return Made(_give_keys(copy.copy(base.backend), entry), None, has_sockets=False, closes=base.closes)


def can_share(backend: str) -> bool:
    """Whether tenants with one location may share the client of a thread.

    Django's own backends remember no key, others may. A client of Memcached bears one use at a time, and where an
    event loop runs the threads of several requests use what was looked up in its own.
    """
    own = _import(backend)
    if not own.__module__.startswith("django."):
        return False
    return issubclass(own, RedisCache) or (issubclass(own, BaseMemcachedCache) and not in_event_loop())


def _disconnect(made: BaseCache) -> None:
    """Close what ``made`` alone uses. Django's ``RedisCache`` has no ``close()`` and leaves it to the collector."""
    made.close()
    client = vars(made).get("_cache") if isinstance(made, RedisCache) else None  # a cached_property
    for pool in vars(client).get("_pools", {}).values() if client is not None else ():
        pool.disconnect()


def _give_keys(made: BaseCache, entry: Cache) -> BaseCache:
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
    if issubclass(own, LocMemCache):
        mixed = (OwnMemory, own) if own.clear is LocMemCache.clear else (_ByGeneration, OwnMemory, own)
        return type(own.__name__, mixed, {})
    for plain, tenants in _BY_PREFIX.items():
        # Only where clear() is Django's: a subclass with a clear() of its own is cleared by generation.
        if issubclass(own, plain) and own.clear is plain.clear:
            return tenants if own is plain else type(own.__name__, (_only_clear(tenants), own), {})
    return type(own.__name__, (_ByGeneration, own), {})


def _only_clear(tenants: type[BaseCache]) -> type:
    return type("TenantClear", (), {"clear": tenants.clear})


@cache  # half of what it costs to make a backend
def _import(backend: str) -> Any:
    try:
        return import_string(backend)
    except ImportError as error:
        raise InvalidCacheBackendError(f"Could not find backend {backend!r}: {error}") from error
