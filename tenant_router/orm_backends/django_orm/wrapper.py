"""The connection classes: a project's backend, made a tenant's, or made nobody's."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import cache
from time import monotonic
from typing import TYPE_CHECKING, Any, NoReturn, cast

from django.db.utils import load_backend

from tenant_router import context as _context
from tenant_router.context_decorators import tenant_context_bind
from tenant_router.exceptions import TenantMismatch
from tenant_router.managers import tenant_context_manager
from tenant_router.orm_backends.django_orm.databases import Database
from tenant_router.orm_backends.django_orm.slots import Slot, Slots

if TYPE_CHECKING:
    from django.db.backends.base.base import BaseDatabaseWrapper as _Base
else:
    _Base = object


POOL_ATTEMPTS = 3  # to get a connection from a pool that is given up meanwhile
POOL_SLICE = 1.0  # seconds after which one who waits for a connection looks whether the pool was closed


class TenantWrapper(_Base):
    """Mixed into a backend's ``DatabaseWrapper``: counted, pooled by database, bound while it calls back."""

    # Copies that Django makes of a wrapper (for its parallel test runner) have neither.
    database: Database | None = None
    slots: Slots | None = None
    limit = 0
    last_used = 0.0  # time.monotonic()
    home: Callable[[], Slot | None]
    _pool_in_use: Any = None

    def attach(self, database: Database, slots: Slots, limit: int) -> None:
        """Make this the connection of this thread to ``database``, one of at most ``limit`` open ones."""
        self.database, self.slots, self.limit = database, slots, limit
        self.home = weakref.ref(slots.mine())  # dead when the thread is
        # Django keeps pools in this class attribute, by alias (backends/postgresql/base.py and oracle/base.py,
        # since 5.1): a changed tenant would keep its old database. Here each database has pools of its own.
        self._connection_pools = database.pools

    def is_bound(self) -> bool:
        """Whether the tenant of this connection is anywhere on the stack of bound tenants."""
        return self.database is not None and _context.pinned(self.database.tenant_id) is not None

    def validate_no_broken_transaction(self) -> None:
        """Django calls this before each statement: a cursor or connection that was kept is refused elsewhere."""
        bound = _context.stack.get()
        if bound and self.database is not None and bound[-1].id != self.database.tenant_id:
            raise TenantMismatch(
                f"a cursor or connection of {self.alias!r} is used while tenant {bound[-1].id!r} is bound"
            )
        super().validate_no_broken_transaction()

    def connect(self) -> None:
        """Connect, once there is room."""
        if self.slots is None:
            return super().connect()
        if self.slots.gate is not None and self.database is not None:
            self.slots.gate.admit(self.database, self.settings_dict)
        holder = self._holder()
        self.slots.budget.admit(holder, self.limit)
        try:
            return super().connect() if holder is self else self._connect_by_pool(holder)
        except BaseException as error:
            if holder is self:
                self.slots.budget.discharge(self)
            error.__dict__["tenant_database_unreachable"] = True  # the middleware answers 503 to it
            # Without the frames below, whose variables hold the password: error pages show variables.
            raise error.with_traceback(None) from error.__cause__

    def close(self) -> None:
        """Close, and make room."""
        super().close()
        if self.slots is not None:
            slot = self.home()
            if slot is not None:
                slot.settled = -1
            if self.connection is None:
                self.slots.budget.discharge(self)

    def close_if_unusable_or_obsolete(self) -> None:
        """As Django does at the start and end of a request, and never while a sweeper is closing this."""
        slot = self.home() if self.slots is not None else None
        if slot is None or slot.in_unit:  # sweepers leave it alone
            super().close_if_unusable_or_obsolete()
            return
        with slot.lock:
            super().close_if_unusable_or_obsolete()

    def retire(self) -> None:
        """Close for good; the pool of a database that is no longer current goes, too, with whoever opened it again."""
        self.close()
        if self.database is not None and self.database.retired and self.slots is not None:
            self.database.close_pools()
            self.slots.budget.discharge(self.database)

    def abandon(self) -> None:
        """Close in the middle of a transaction, which the server (or the pool) rolls back."""
        self.in_atomic_block, self.savepoint_ids, self.atomic_blocks = False, [], []
        self.close()

    @property
    def pool(self) -> Any:
        """The pool (django/db/backends/postgresql/base.py), one and the same while connecting.

        A unit of work that goes on after a change of settings connects without one: its
        database's pool was closed, and another would have to be closed again.
        """
        if self._pool_in_use is not None:
            return self._pool_in_use
        return None if self.database is not None and self.database.retired else super().pool  # type: ignore[misc]

    def _connect_by_pool(self, database: Database) -> None:
        for _ in range(POOL_ATTEMPTS):
            pool = super().pool if not database.retired else None  # type: ignore[misc]
            self._pool_in_use = _Patient(pool) if hasattr(pool, "getconn") else pool
            try:
                return super().connect()
            except Exception:
                if pool is None or (database.pools.get(self.alias) is pool and not database.retired):
                    raise
            finally:
                self._pool_in_use = None
                # It was given up meanwhile, by a change of settings or to make room: nobody else would close it.
                if pool is not None and (database.retired or database.pools.get(self.alias) is not pool):
                    pool.close()
        return super().connect()

    def run_and_clear_commit_hooks(self) -> None:
        """Run ``on_commit`` callbacks as this tenant, also when only an alias named it."""
        if self.database is None or not self.run_on_commit or self.is_bound():
            return super().run_and_clear_commit_hooks()
        with tenant_context_bind(tenant_context_manager.get_in_any_state(self.database.tenant_id)):
            return super().run_and_clear_commit_hooks()

    def _holder(self) -> Any:
        return self.database if self.settings_dict["OPTIONS"].get("pool") else self


class _Patient:
    """A psycopg pool for one who waits: who comes while it is being closed is never told (psycopg_pool 3.3)."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)

    def getconn(self) -> Any:
        """A connection within the pool's own timeout. Raises what the pool raises."""
        from psycopg_pool import PoolTimeout

        deadline = monotonic() + self._pool.timeout
        while True:
            left = deadline - monotonic()
            try:
                return self._pool.getconn(timeout=min(left, POOL_SLICE))
            except PoolTimeout:
                if self._pool.closed or left <= POOL_SLICE:
                    raise


class UnboundWrapper(_Base):
    """Mixed into a backend's ``DatabaseWrapper``: a template alias while no tenant is bound.

    It answers what needs no connection (``ops``, ``vendor``, most ``features``); whatever needs
    one raises ``TenantContextMissing``.
    """

    def connect(self) -> NoReturn:
        """Refuse."""
        raise _context.missing(f"database alias {self.alias!r}")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # dbshell would otherwise open the template's own database
        self.client.runshell = self._refuse  # type: ignore[method-assign]

    def _refuse(self, *args: Any, **kwargs: Any) -> NoReturn:
        self.connect()


@cache
def tenant_wrapper_class(engine: str) -> type[TenantWrapper]:
    """The backend named ``engine`` as a tenant's connection."""
    return cast("type[TenantWrapper]", _mixed(TenantWrapper, engine))


@cache
def unbound_wrapper_class(engine: str) -> type[UnboundWrapper]:
    """The backend named ``engine`` as nobody's connection."""
    return cast("type[UnboundWrapper]", _mixed(UnboundWrapper, engine))


def _mixed(mixin: type, engine: str) -> Any:
    backend = load_backend(engine).DatabaseWrapper
    # __module__ and the name stay the backend's: third-party code tells databases apart by them
    return type(backend.__name__, (mixin, backend), {"__module__": backend.__module__})
