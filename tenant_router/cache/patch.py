"""``django.core.cache.caches``, made tenant-aware in place.

``caches[alias]`` of a template alias is a proxy that finds the bound tenant's cache at each
use, so a module-level ``cache = caches["x"]`` neither fails at import nor leaks between tenants.
"""

from __future__ import annotations

import os
import threading
import weakref
from functools import partial, update_wrapper
from types import MethodType
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.core.cache import CacheHandler, caches
from django.core.cache.backends.base import BaseCache, InvalidCacheBackendError

from tenant_router import context as _context
from tenant_router.cache.entries import Cache
from tenant_router.cache.open_caches import Made, OpenCache, OpenCaches, ThreadCaches
from tenant_router.conf import conf
from tenant_router.janitor import Janitor

# What the context of a test tenant carries that uses the caches of the templates themselves.
PLAIN: dict[str, Any] = {}


class TenantCache:
    """One template alias's cache: the bound tenant's, at each use.

    Everything that the backend has is reachable through it; a method that was kept (``get = cache.get``) is the bound
    tenant's at each call. Without a tenant every use but
    ``close()`` raises ``TenantContextMissing``.
    """

    __slots__ = ("_alias", "_handler")

    def __init__(self, handler: TenantAwareCacheHandler, alias: str) -> None:
        object.__setattr__(self, "_handler", handler)
        object.__setattr__(self, "_alias", alias)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and _context.current() is None:
            raise AttributeError(name)  # who inspects a module's attributes (doctest, copy) uses no cache
        found = getattr(self._handler.backend(self._alias), name)
        return partial(_call, self, name) if isinstance(found, MethodType) else found

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


def _call(cache: TenantCache, name: str, *args: Any, **kwargs: Any) -> Any:
    """Call a method of the bound tenant's backend: the tenant is found when it is called, not when it is looked up."""
    return getattr(cache._handler.backend(cache._alias), name)(*args, **kwargs)


def _method(name: str) -> Any:
    def call(self: TenantCache, *args: Any, **kwargs: Any) -> Any:
        return getattr(self._handler.backend(self._alias), name)(*args, **kwargs)

    original = getattr(BaseCache, name)
    return update_wrapper(markcoroutinefunction(call) if iscoroutinefunction(original) else call, original)


# What every cache has is called in one step, as ``__getattr__`` would look it up: cache.get costs what it did.
for _name in vars(BaseCache):
    if not _name.startswith("_") and not hasattr(TenantCache, _name):
        setattr(TenantCache, _name, _method(_name))


class TenantAwareCacheHandler(CacheHandler):
    """Django's cache handler, aware of tenants. Reserved aliases behave as Django's own."""

    _connections: Any
    _open: OpenCaches

    def __init__(self, settings: Any = None) -> None:
        super().__init__(settings)
        self.prepare()
        own = weakref.ref(self)  # the runtime sees to django.core.cache.caches alone
        os.register_at_fork(after_in_child=lambda: _reset(own()))

    def prepare(self) -> None:
        """Set up what is ours; also for an object that was a plain handler before."""
        self._proxies: dict[str, TenantCache] = {}
        self._janitor = Janitor()
        self._begin()

    def reset(self) -> None:
        """Forget all tenants' backends: in a forked child their sockets are the parent's."""
        self._open.forsaken = True
        self._janitor.reset_after_fork()
        self._begin()

    def _begin(self) -> None:
        self._open = OpenCaches(conf.caches["MAX_OPEN_CACHES"], self._janitor)
        self._local = threading.local()

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
        """The caches of all aliases; with ``initialized_only`` the backends that are at work in this thread.

        These are what the unit of work here has used, and reserved ones. The end of a request walks them: the cost
        follows what was used, never the number of open caches.
        """
        if not initialized_only:
            return [self[alias] for alias in self]
        aliases = self if _is_plain() else conf.reserved_caches
        opened = [getattr(self._connections, alias) for alias in aliases if hasattr(self._connections, alias)]
        return self._at_work() + opened

    def backend(self, alias: str) -> BaseCache:
        """The bound tenant's backend for a template alias, one per thread as Django has it."""
        bound = _context.stack.get() or _context.ambient
        if bound and bound[0].over:
            bound = _context.bound()  # or what was bound by a unit that has ended would be used
        if not bound:
            raise _context.missing(f"cache alias {alias!r}")
        if _is_plain():
            return super().__getitem__(alias)
        entry, unit = bound[-1].parts["cache"].get(alias), bound[0]
        if entry is None:
            raise InvalidCacheBackendError(f"The connection '{alias}' doesn't exist.")
        mine = self._local.__dict__.get("own") or self._mine()
        found = mine.lent.get((entry, id(unit)))
        if found is None or found.unit() is not unit:
            found = self._open.borrow(mine, entry, unit, partial(self._make, mine, entry))
        # The unit may have ended meanwhile: its tenant is resolved again.
        return found.backend if found is not None else self.backend(alias)

    def _mine(self) -> ThreadCaches:
        own = self._local.own = ThreadCaches(self._open)
        return own

    def _at_work(self) -> list[BaseCache]:
        bound, mine = _context.stack.get(), self._local.__dict__.get("own")
        if not bound or mine is None or not bound[0].uses:
            return []
        used = [each for each in [*bound[0].uses] if isinstance(each, OpenCache)]
        return [each.backend for each in used if each.home() is mine]

    def _make(self, mine: ThreadCaches, entry: Cache) -> Made:
        from tenant_router.cache import backends  # now: it imports all of Django's, and most processes use one or none

        if entry.own_location or not backends.can_share(entry.backend):
            return backends.make(entry)
        if entry.alias not in mine.clients:
            mine.clients[entry.alias] = backends.make(entry)
        return backends.share(mine.clients[entry.alias], entry)


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
    if isinstance(handler, TenantAwareCacheHandler):
        handler._janitor.stop()
    handler.__class__ = CacheHandler
