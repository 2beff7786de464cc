"""Cache backends as projects and third parties write them, and the project's own key functions."""

import asyncio
import threading
import weakref

from django.core.cache.backends.base import DEFAULT_TIMEOUT, BaseCache
from django.core.cache.backends.locmem import LocMemCache
from django.core.cache.backends.redis import RedisCache

SHELVES: dict[str, dict[str, object]] = {}


class ThirdParty(BaseCache):
    """Keeps everything of one location in a dictionary; it knows no tenants, and ``clear()`` means everything."""

    def __init__(self, location, params):
        self.colour = params.pop("COLOUR", "none")  # takes its own parameter out, as some do
        super().__init__(params)
        self.shelf = SHELVES.setdefault(location, {})

    def add(self, key, value, timeout=DEFAULT_TIMEOUT, version=None):
        return not self.has_key(key, version) and self.set(key, value, timeout, version) is None

    def get(self, key, default=None, version=None):
        return self.shelf.get(self.make_key(key, version), default)

    def set(self, key, value, timeout=DEFAULT_TIMEOUT, version=None):
        self.shelf[self.make_key(key, version)] = value

    def touch(self, key, timeout=DEFAULT_TIMEOUT, version=None):
        return self.make_key(key, version) in self.shelf

    def delete(self, key, version=None):
        return self.shelf.pop(self.make_key(key, version), None) is not None

    def clear(self):
        self.shelf.clear()

    def paint(self, colour):
        self.colour = colour
        return self


class Connected(ThirdParty):
    """Has a connection from its first use to its ``close()``, bears one use at a time, and none of it in a loop."""

    everyone: "weakref.WeakSet[Connected]" = weakref.WeakSet()
    hanging = None  # what the first close() of own-0 waits for

    def __init__(self, location, params):
        super().__init__(location, params)
        self.location, self.connected, self.closings = location, False, 0
        self.closes = threading.Event()
        self.lock = threading.RLock()  # a generation is read while a key is made
        Connected.everyone.add(self)

    def get(self, key, default=None, version=None):
        assert self.lock.acquire(blocking=False), "used by two at a time"
        try:
            self.connected = True
            return super().get(key, default, version)
        finally:
            self.lock.release()

    def close(self, **kwargs):
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            pass
        else:
            raise RuntimeError("not in an event loop")
        self.closes.set()
        if self.hanging is not None and self.location == "own-0":
            assert self.hanging.wait(60)
        self.connected = False
        self.closings += 1


class OwnKeys(ThirdParty):
    """Makes its keys by itself and never asks ``key_func``."""

    def make_key(self, key, version=None):
        return f"own/{version or self.version}/{key}"


class OwnKeysInMemory(LocMemCache):
    """The same over one of Django's backends, whose ``clear()`` stays Django's."""

    def make_key(self, key, version=None):
        return f"own/{version or self.version}/{key}"


class TwoLevels(RedisCache):
    """Remembers in the process what it read, by the key it was asked for."""

    def __init__(self, server, params):
        super().__init__(server, params)
        self.remembered = {}

    def get(self, key, default=None, version=None):
        if key not in self.remembered:
            self.remembered[key] = super().get(key, default, version)
        return self.remembered[key]


def shouting_keys(key, key_prefix, version):
    return f"{key_prefix}/{version}/{key}".upper()


class CentralTableRouter:
    """Puts Django's cache tables into the reserved database."""

    def db_for_read(self, model, **hints):
        return "central" if model._meta.app_label == "django_cache" else None

    db_for_write = db_for_read

    def allow_migrate(self, db, app_label, **hints):
        return db == "central" if app_label == "django_cache" else None
