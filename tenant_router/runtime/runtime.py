"""The one object per process that owns the store, the reflector, the registry and the managers.

It is made by the AppConfig, which wires and does no I/O. What makes a process a server is
:meth:`Runtime.serve`, called by the middleware and by Celery's signals; any other process
synchronises when it first asks the registry.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from tenant_router import context as _context
from tenant_router import log
from tenant_router.cache.manager import CacheManager
from tenant_router.conf import Conf, conf
from tenant_router.config_file import check_record
from tenant_router.exceptions import BootError, ConfigurationError, EpochChanged, TenantNotLoaded
from tenant_router.janitor import Janitor
from tenant_router.managers import tenant_context_manager
from tenant_router.managers.registry import TenantContextManager
from tenant_router.orm_backends.django_orm.manager import DjangoOrmManager
from tenant_router.orm_backends.loader import load_managers
from tenant_router.reactive import boot
from tenant_router.reactive.building import Builder
from tenant_router.reactive.fleet import Member, Reporter
from tenant_router.reactive.pipeline import Pipeline
from tenant_router.reactive.records import Records
from tenant_router.reactive.reflector import Reflector
from tenant_router.reactive.synchroniser import Timing
from tenant_router.runtime import executors, process_tenant, roles, status
from tenant_router.runtime.factories import make_last_good, make_serializer, make_store
from tenant_router.runtime.forks import Forks
from tenant_router.tenant_context import TenantContext

logger = logging.getLogger(__name__)

SECTIONS = ("orm_config", "cache_config", "labels")  # of a record


class Runtime:
    """Wiring, boot and fork. ``tenant_context_manager.owner`` is the process's runtime."""

    def __init__(self, conf: Conf, registry: TenantContextManager) -> None:
        self.conf, self.registry = conf, registry
        self.orms = load_managers(conf)
        self.caches = CacheManager(conf.reserved_caches)
        self.serializer = make_serializer(conf)
        self.store = make_store(conf)
        self.builder = Builder(self.orms, self.caches, self.serializer, self.check_record)
        self.pipeline = Pipeline(registry, self.builder, conf.store_options["EAGER_MAX"])
        options = conf.store_options
        timing = Timing(options["IDLE"], options["RESYNC"], options["MAX_SHRINK"])
        self.last_good = make_last_good(conf)
        reporter = Reporter(self.store, self.describe, options["STATUS_TTL"])
        self.reflector = Reflector(self.store, self.pipeline, timing, reporter, self.last_good)
        self.records = Records(self.store, self.pipeline, self.reflector, self.last_good)
        self.armed = False  # this process serves: a forked child of it does, too
        self.role = "script"
        self._synchronised = False
        self._lock = threading.Lock()
        self.forks = Forks(self)

    def install(self) -> None:
        """Take over Django's connections and caches."""
        log.keep_running()  # the reader of the store logs, too
        for manager in self.orms.values():
            manager.install()
        self.caches.install()
        if self.conf.context["CARRY_INTO_EXECUTORS"]:
            executors.install()
        process_tenant.adopt()
        self.registry.owner = self
        too_old = self._too_old if self.conf.store_options["MAX_STALENESS"] else None
        self.registry.attach(self, tuple(self.templates().get("django_orm", ())), too_old)

    def uninstall(self) -> None:
        """Undo :meth:`install` and end the reflector."""
        self.reflector.stop()
        for manager in self.orms.values():
            manager.uninstall()
        self.caches.uninstall()
        executors.uninstall()
        Janitor.threaded = True
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
        """Every fault of a tenant's record that can be seen before its managers prepare it.

        What a later release has added beside the sections that are known here is ignored.
        """
        return check_record(
            {name: value for name, value in record.items() if name in SECTIONS},
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
        if not self._synchronised and self.conf.store_options["BOOT"] != "lazy":
            boot.read_store(self.conf, self.reflector, self.last_good)
            boot.check_records(self.conf, self.pipeline, self.records.fetch)
            self.pipeline.serve()  # a child of a script may become a server
            self._synchronised = True
        Janitor.threaded = thread and not roles.will_fork_servers()
        if Janitor.threaded:
            self.reflector.start()
        elif self.reflector._thread is None:
            self.store.reset_after_fork()

    def follow(self) -> None:
        """Follow the store from what a parent process has read; nothing is served before that was compared."""
        self.armed = True
        self.reflector.start()

    def catch_up(self) -> None:
        """In a server that follows nothing itself: take what the store has had since; see ``Forks.catch_up``."""
        self.forks.catch_up()

    def leave(self) -> None:
        """Tell the fleet that this process ends. Anything may go wrong then, and nothing of it matters."""
        if self.reflector.alive:
            with suppress(Exception):
                self.reflector.reporter.leave()

    # --- what the registry asks for ---

    def synchronise(self) -> None:
        """Fill the registry once; later calls cost nothing. Raises ``StoreError`` or ``BootError``."""
        if self._synchronised:
            return
        if self.reflector.synchronised:
            self.forks.go_on()
            self._synchronised = True
        elif self.armed and self.conf.store_options["BOOT"] == "lazy":
            raise TenantNotLoaded("no tenant is served yet: this process has not read its config store")
        else:
            self._read()

    def _read(self) -> None:
        with self._lock:
            if not self._synchronised:
                try:
                    self.reflector.synchronise()
                except EpochChanged as error:
                    raise BootError(boot.one_line(self.conf, error)) from error
                self._synchronised = True
                self.pipeline.serve()
                self.reflector.start()

    def refresh(self) -> None:
        """Know all that the store has now, whatever this process knew before. Raises ``StoreError``, ``BootError``."""
        if self._synchronised:
            self.reflector.synchronise()
        else:
            self.synchronise()

    def load(self, tenant_id: str) -> TenantContext:
        """Prepare a known tenant at its first use. Raises ``TenantUnavailable``."""
        return self.records.load(tenant_id)

    def look_up(self, tenant_id: str) -> bool:
        """Ask the store for an id that is unknown here: it may have been created a moment ago."""
        return self.records.look_up(tenant_id)

    # --- what others are told ---

    def describe(self) -> Member:
        """This process, as the fleet's status shows it."""
        return status.describe(self.role, self.reflector, self.registry)

    @property
    def serves(self) -> bool:
        """Whether tenants are served here, be it from an older state of the store."""
        return self.reflector.synchronised and not (self.conf.store_options["MAX_STALENESS"] and self._too_old())

    def revive(self) -> None:
        """Start the reflector's thread again if it died: a bug of ours, which must not leave this process deaf."""
        if self.reflector.died:
            logger.critical("the thread that follows the config store died; it is started again")
            self.reflector.start()

    def check_health(self) -> Iterator[tuple[str, str, Exception | None]]:
        """Ask each database of the bound tenant; ``(orm, template alias, what went wrong)``."""
        return status.check_health(self.orms)

    def _too_old(self) -> bool:
        limit = float(self.conf.store_options["MAX_STALENESS"])
        return not _context.testing and self.reflector.since_contact > limit

    def reset_after_fork(self) -> None:
        """In a child: forget the parent's threads and sockets, and serve nothing yet of what it knew."""
        self._lock = threading.Lock()
        self._synchronised = False
        self.records.reset_after_fork()
        self.pipeline.reset_after_fork()
        self.reflector.reset_after_fork()
        self.store.reset_after_fork()
        for manager in self.orms.values():
            manager.reset_after_fork()
        self.caches.reset_after_fork()
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


def _leave() -> None:
    if is_installed():
        get().leave()


atexit.register(_leave)
