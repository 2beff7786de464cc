"""The one object per process that owns the store, the reflector, the registry and the managers.

It is made by the AppConfig, which wires and does no I/O. What makes a process a server is
:meth:`Runtime.serve`, called by the middleware and by Celery's signals; any other process
synchronises when it first asks the registry.
"""

from __future__ import annotations

import logging
import os
import random
import threading
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

from django.utils.module_loading import import_string

from tenant_router import context as _context
from tenant_router import processes
from tenant_router.cache.manager import CacheManager
from tenant_router.conf import STORE, Conf, conf
from tenant_router.config_file import check_record
from tenant_router.config_store.base import ConfigStore
from tenant_router.config_store.serializers.base import Serializer
from tenant_router.context import TenantContext
from tenant_router.exceptions import BootError, ConfigurationError, Denied, EpochChanged, StoreError, TenantNotLoaded
from tenant_router.look_ups import LookUps
from tenant_router.managers import tenant_context_manager
from tenant_router.managers.registry import TenantContextManager
from tenant_router.orm_backends.django_orm.manager import DjangoOrmManager
from tenant_router.orm_backends.loader import load_managers
from tenant_router.pipeline import Pipeline
from tenant_router.reflector import Reflector, Timing

logger = logging.getLogger(__name__)


class Runtime:
    """Wiring, boot and fork. ``tenant_context_manager.owner`` is the process's runtime."""

    def __init__(self, conf: Conf, registry: TenantContextManager) -> None:
        self.conf, self.registry = conf, registry
        self.orms = load_managers(conf)
        self.caches = CacheManager(conf.reserved_caches)
        self.serializer = _make_serializer(conf)
        self.store = _make_store(conf)
        self.pipeline = Pipeline(
            registry, self.orms, self.caches, self.serializer, self.check_record, conf.store_options["EAGER_MAX"]
        )
        options = conf.store_options
        timing = Timing(options["IDLE"], options["RESYNC"], options["MAX_SHRINK"])
        self.reflector = Reflector(self.store, self.pipeline, timing)
        self.armed = False  # this process serves: a forked child of it does, too
        self.role = "script"
        self._synchronised = False
        self._look_ups = LookUps()
        self._lock = threading.Lock()

    def install(self) -> None:
        """Take over Django's connections and caches."""
        for manager in self.orms.values():
            manager.install()
        self.caches.install()
        self.registry.owner = self
        self.registry.attach(self, tuple(self.templates().get("django_orm", ())))

    def uninstall(self) -> None:
        """Undo :meth:`install` and end the reflector."""
        self.reflector.stop()
        for manager in self.orms.values():
            manager.uninstall()
        self.caches.uninstall()
        self.registry.owner = None
        self.registry.attach(None)
        self.registry.clear()

    def templates(self) -> Mapping[str, tuple[str, ...]]:
        """The template aliases of each ORM."""
        return {orm_id: manager.template_aliases for orm_id, manager in self.orms.items()}

    def reserved(self) -> Mapping[str, tuple[str, ...]]:
        """The reserved aliases of each ORM."""
        return {orm_id: manager.reserved_aliases for orm_id, manager in self.orms.items()}

    def check_record(self, record: Mapping[str, Any]) -> list[tuple[str, str]]:
        """Every fault of a tenant's record that can be seen before its managers prepare it."""
        return check_record(
            record,
            templates=self.templates(),
            reserved=self.reserved(),
            cache_templates=self.caches.template_aliases,
            cache_reserved=self.caches.reserved_aliases,
        )

    # --- boot ---

    def serve(self, role: str, *, thread: bool = True, asynchronous: bool = False) -> None:
        """Make this process a server: synchronise, then follow the store in a thread.

        ``role``: "web", "celery" or "beat". A process that will fork its servers follows nothing
        itself: its children start from what it has read. Raises ``BootError``, one line.
        """
        if _context.testing:
            return  # a test run has tenants of its own, and no store
        if os.environ.get("TENANT_ID"):
            raise BootError("TENANT_ID is set: it binds commands, and a server serves all tenants; unset it")
        self.role, self.armed = role, True
        for manager in self.orms.values():
            if asynchronous and isinstance(manager, DjangoOrmManager):
                manager.serve_asynchronously()
        if not self._synchronised:
            self._synchronise_or_stop()
        if thread and not processes.will_fork_servers():
            self.reflector.start()
        elif self.reflector._thread is None:
            self.store.reset_after_fork()

    def follow(self) -> None:
        """Follow the store from what a parent process has read."""
        self._synchronised = self.reflector.head is not None
        self.armed = True
        self.registry.serve_prepared()
        self.reflector.start()

    def _synchronise_or_stop(self) -> None:
        deadline = time.monotonic() + self.conf.store_options["BOOT_TIMEOUT"]
        while True:
            try:
                self.reflector.synchronise()
            except (EpochChanged, Denied) as error:
                raise BootError(_boot_line(self.conf, error)) from error
            except StoreError as error:
                if time.monotonic() >= deadline:
                    raise BootError(_boot_line(self.conf, error)) from error
                time.sleep(random.uniform(0.05, 0.5))
            else:
                self._synchronised = True
                return

    # --- what the registry asks for ---

    def synchronise(self) -> None:
        """Fill the registry once; later calls cost nothing. Raises ``StoreError`` or ``BootError``."""
        if self._synchronised:
            return
        with self._lock:
            if not self._synchronised:
                try:
                    self.reflector.synchronise()
                except EpochChanged as error:
                    raise BootError(_boot_line(self.conf, error)) from error
                self._synchronised = True
                self.registry.serve_prepared()
                self.reflector.start()

    def load(self, tenant_id: str) -> TenantContext:
        """Prepare a known tenant at its first use. Raises ``TenantUnavailable``."""
        try:
            return self.pipeline.load(tenant_id, self.store.get_many)
        except StoreError as error:
            raise TenantNotLoaded(
                f"the record of tenant {tenant_id!r} cannot be read now: {error}", tenant_id
            ) from error

    def look_up(self, tenant_id: str) -> bool:
        """Ask the store for an id that is unknown here: it may have been created a moment ago."""
        if not self.reflector.ready:
            return False
        return self._look_ups.once(tenant_id, self._ask_store) or tenant_id in self.registry.index

    def _ask_store(self, tenant_id: str) -> bool:
        try:
            record = self.store.get_many([tenant_id]).get(tenant_id)
        except StoreError as error:
            logger.warning("looking up a tenant: %s", error)
            return False
        if record is None:
            return False
        self.pipeline.adopt(tenant_id, record)
        return True

    # --- fork ---

    def after_fork(self) -> None:
        """In a forked child: forget the parent's threads and sockets; serve if the parent served."""
        self._lock = threading.Lock()
        self._look_ups = LookUps()
        self.pipeline.reset_after_fork()
        self.reflector.reset_after_fork()
        self.store.reset_after_fork()
        for manager in self.orms.values():
            manager.reset_after_fork()
        self.caches.reset_after_fork()
        if self.armed and not processes.forked_by_multiprocessing():
            self.reflector.start()
        else:
            self._synchronised = False  # it asks for itself, if it ever asks
            self.registry.withhold()


def is_installed() -> bool:
    """Whether this process has its runtime."""
    return isinstance(tenant_context_manager.owner, Runtime)


def install() -> Runtime:
    """Make and install the process's runtime, if there is none yet (Django may call ``ready()`` twice)."""
    if isinstance(tenant_context_manager.owner, Runtime):
        return tenant_context_manager.owner
    runtime = Runtime(conf, tenant_context_manager)
    runtime.install()
    return runtime


def get() -> Runtime:
    """The process's runtime. Raises ``ConfigurationError`` when the app is not installed."""
    runtime = tenant_context_manager.owner
    if not isinstance(runtime, Runtime):
        raise ConfigurationError("tenant_router is not installed: add 'tenant_router' first in INSTALLED_APPS")
    return runtime


def _after_fork() -> None:
    source = tenant_context_manager.source
    if isinstance(source, Runtime):
        source.after_fork()


os.register_at_fork(after_in_child=_after_fork)


def _make_store(conf: Conf) -> ConfigStore:
    path = conf.store["BACKEND"]
    try:
        backend = import_string(path)
    except ImportError as error:
        raise ConfigurationError(f"{STORE}['BACKEND']: cannot import {path!r}: {error}") from error
    try:
        store = backend(conf.service, conf.store["LOCATION"], conf.store_options["CLIENT_KWARGS"])
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"{STORE}: {path!r} refuses its LOCATION or OPTIONS: {error}") from error
    if not isinstance(store, ConfigStore):
        raise ConfigurationError(f"{STORE}['BACKEND']: {path!r} is no subclass of ConfigStore")
    return store


def _make_serializer(conf: Conf) -> Serializer:
    path = conf.serializer["CLASS"]
    where = f"{STORE}['OPTIONS']['SERIALIZER']"
    try:
        made = partial(import_string(path), **conf.serializer["OPTIONS"])()
    except ImportError as error:
        raise ConfigurationError(f"{where}['CLASS']: cannot import {path!r}: {error}") from error
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"{where}: {path!r} refuses its OPTIONS: {error}") from error
    if not isinstance(made, Serializer):
        raise ConfigurationError(f"{where}['CLASS']: {path!r} is no subclass of Serializer")
    return made


def _boot_line(conf: Conf, error: StoreError) -> str:
    if isinstance(error, EpochChanged):
        return (
            f"the config store holds nothing for service {conf.service!r}: load a configuration first "
            "(python manage.py load_tenant_config)"
        )
    return f"the config store of service {conf.service!r} cannot be read: {error}"
