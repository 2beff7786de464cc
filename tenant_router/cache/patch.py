"""``django.core.cache.caches``, made tenant-aware in place.

``caches[alias]`` of a template alias is a proxy that finds the bound tenant's cache at each
use, so a module-level ``cache = caches["x"]`` neither fails at import nor leaks between tenants.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import Any

from django.core.cache import CacheHandler, caches
from django.core.cache.backends.base import BaseCache, InvalidCacheBackendError

from tenant_router import context as _context
from tenant_router.conf import conf

# What the context of a test tenant carries that uses the caches of the templates themselves.
PLAIN: dict[str, Any] = {}


class TenantCache:
    """One template alias's cache: the bound tenant's, at each use.

    Everything that the backend has is reachable through it. Without a tenant every use but
    ``close()`` raises ``TenantContextMissing``.
    """

    __slots__ = ("_alias", "_handler")

    def __init__(self, handler: TenantAwareCacheHandler, alias: str) -> None:
        object.__setattr__(self, "_handler", handler)
        object.__setattr__(self, "_alias", alias)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and _context.current() is None:
            raise AttributeError(name)  # who inspects a module's attributes (doctest, copy) uses no cache
        return getattr(self._handler.backend(self._alias), name)

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        # createcachetable asks isinstance; the system checks do so without a tenant, and would go on to use it
        return TenantCache if _context.current() is None else type(self._handler.backend(self._alias))

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._handler.backend(self._alias), name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._handler.backend(self._alias), name)

    def __contains__(self, key: str) -> bool:
        return key in self._handler.backend(self._alias)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._alias!r}>"

    def close(self, **kwargs: Any) -> None:
        """Close the bound tenant's cache, if a tenant is bound."""
        if _context.current() is not None:
            self._handler.backend(self._alias).close(**kwargs)


class _OfThread(threading.local):
    """What one thread has opened; Python makes it anew for each thread."""

    def __init__(self) -> None:
        self.opened: dict[Any, BaseCache] = {}
        self.bases: dict[str, BaseCache] = {}


class TenantAwareCacheHandler(CacheHandler):
    """Django's cache handler, aware of tenants. Reserved aliases behave as Django's own."""

    _connections: Any

    def __init__(self, settings: Any = None) -> None:
        super().__init__(settings)
        self.prepare()
        own = weakref.ref(self)  # the runtime sees to django.core.cache.caches alone
        os.register_at_fork(after_in_child=lambda: _reset(own()))

    def prepare(self) -> None:
        """Set up what is ours; also for an object that was a plain handler before."""
        self._proxies: dict[str, TenantCache] = {}
        self.reset()

    def reset(self) -> None:
        """Forget all tenants' backends (in a forked child their sockets are the parent's)."""
        self._local = _OfThread()

    def __getitem__(self, alias: str) -> Any:
        if _is_plain():
            return super().__getitem__(alias)
        proxy = self._proxies.get(alias)
        if proxy is not None and alias in self.settings:
            return proxy
        if alias in conf.reserved_caches or alias not in self.settings:
            return super().__getitem__(alias)
        return self._proxies.setdefault(alias, TenantCache(self, alias))

    def all(self, initialized_only: bool = False) -> list[Any]:
        """The caches of all aliases; with ``initialized_only`` the backends that this thread has opened."""
        if not initialized_only:
            return [self[alias] for alias in self]
        opened = list(self._local.opened.values())
        aliases = self if _is_plain() else conf.reserved_caches
        if aliases:
            opened += [getattr(self._connections, alias) for alias in aliases if hasattr(self._connections, alias)]
        return opened

    def close_all(self) -> None:
        """Close what this thread has opened, and drop what belongs to replaced configurations."""
        super().close_all()
        self._drop_retired()

    def backend(self, alias: str) -> BaseCache:
        """The bound tenant's backend for a template alias, one per thread as Django has it."""
        bound = _context.stack.get() or _context.ambient
        if not bound:
            raise _context.missing(f"cache alias {alias!r}")
        if _is_plain():
            return super().__getitem__(alias)
        entry = bound[-1].parts["cache"].get(alias)
        if entry is None:
            raise InvalidCacheBackendError(f"The connection '{alias}' doesn't exist.")
        try:
            return self._local.opened[entry]
        except KeyError:
            self._drop_retired()  # here too: an event loop's thread opens caches and never closes them
            made = self._local.opened[entry] = self._make(entry)
            return made

    def _make(self, entry: Any) -> BaseCache:
        from tenant_router.cache import backends  # now: it imports all of Django's, and most processes use one or none

        if not entry.own_location:
            base = self._local.bases.get(entry.alias)
            if base is not None:
                return backends.share(base, entry)
        made = backends.make(entry)
        if not entry.own_location and backends.can_share(entry.backend):
            self._local.bases[entry.alias] = made
        return made

    def _drop_retired(self) -> None:
        opened = self._local.opened
        for entry in [entry for entry in opened if entry.retired]:
            del opened[entry]


def _is_plain() -> bool:
    """Whether a test tenant is bound that uses the templates' own caches."""
    bound = (_context.stack.get() or _context.ambient) if _context.testing else ()
    return bool(bound) and bound[-1].parts["cache"] is PLAIN


def _reset(handler: TenantAwareCacheHandler | None) -> None:
    if handler is not None:
        handler.reset()


def install() -> None:
    """Make ``django.core.cache.caches`` tenant-aware; idempotent."""
    handler: Any = caches
    if not isinstance(handler, TenantAwareCacheHandler):
        handler.__class__ = TenantAwareCacheHandler
        handler.prepare()


def uninstall() -> None:
    """Undo :func:`install`."""
    handler: Any = caches
    handler.__class__ = CacheHandler
