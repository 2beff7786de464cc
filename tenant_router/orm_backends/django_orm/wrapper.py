"""A project's database backend, made a tenant's: its wrapper borrows a physical connection and gives it back."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from contextlib import suppress
from functools import cache, cached_property
from time import monotonic
from typing import TYPE_CHECKING, Any, cast

from django.db.backends.base.base import NO_DB_ALIAS

from tenant_router import context as _context
from tenant_router import unit_of_work as units
from tenant_router.exceptions import TenantMismatch, TooManyConnections
from tenant_router.managers import tenant_context_manager
from tenant_router.orm_backends.budget import Place
from tenant_router.orm_backends.django_orm import identity_stamp
from tenant_router.orm_backends.django_orm.backend_classes import mixed
from tenant_router.orm_backends.django_orm.databases import Database
from tenant_router.orm_backends.django_orm.open_connections import OpenConnections, ThreadConnections
from tenant_router.orm_backends.django_orm.physical import PhysicalConnection
from tenant_router.orm_backends.django_orm.pool import ConnectionPool, pool_of
from tenant_router.orm_backends.django_orm.statements import Running
from tenant_router.tenant_context import TenantContext
from tenant_router.unit_of_work import Unit

if TYPE_CHECKING:
    from django.db.backends.base.base import BaseDatabaseWrapper as _Base
else:
    _Base = object

CONNECT_TIMEOUT = 5  # seconds, where the settings say nothing: else a host that never answers takes its thread along


class TenantWrapper(_Base):
    """Mixed into a backend's ``DatabaseWrapper``: counted, pooled by database, bound while it calls back.

    ``users``: how many living units of work use it (under the budget's lock). ``physical``: the connection that it
    has borrowed, while it is open. ``context``: the tenant's, where an explicit alias alone named it.
    """

    # Copies that Django makes of a wrapper (for its parallel test runner) have none of it.
    database: Database | None = None
    owner: OpenConnections | None = None
    home: Callable[[], ThreadConnections | None]
    tenant_id = ""
    users = 0
    physical: PhysicalConnection | None = None
    context: TenantContext | None = None
    half_read: weakref.WeakSet[Any] | None = None
    _pool_in_use: ConnectionPool | None = None  # where its connection came from

    def attach(self, database: Database, owner: OpenConnections, mine: ThreadConnections) -> None:
        """Make this the connection of this thread to ``database``, counted and closed by ``owner``."""
        self.belong_to(database, mine)
        self.owner = owner
        identity_stamp.verify_before_shell(self.client)
        # Django keeps pools in this class attribute, by alias (backends/postgresql/base.py and oracle/base.py,
        # since 5.1): a changed tenant would keep its old database. Here each database has pools of its own.
        self._connection_pools = database.pools

    def belong_to(self, database: Database, mine: ThreadConnections) -> None:
        """Make this a connection of this thread to ``database``; a test run counts and closes its own."""
        self.database, self.tenant_id = database, database.tenant_id
        self.home = weakref.ref(mine)  # dead when the thread is

    # --- as a resource of units of work ---

    def left_by(self, unit: Unit) -> None:
        """``unit`` uses this no longer."""
        if self.owner is not None:
            self.owner.left(self, unit.closes)

    def may_rest(self) -> bool:
        """Whether nothing is half done on it: no transaction, no statement, no rows that are still to be read."""
        return not (
            self.in_atomic_block
            or self.wrap_database_errors.running
            or self.autocommit != self.settings_dict["AUTOCOMMIT"]
            or (self.half_read and any(not _is_closed(cursor) for cursor in self.half_read))
        )

    def is_abandoned(self) -> None:
        """A unit that used it became garbage."""
        if self.owner is not None:
            self.owner.janitor.do_if_running(units.release_abandoned)

    def must_close(self, closes: bool) -> bool:
        """Whether it is to be closed now that no unit uses it. ``closes``: as at the end of a request."""
        database = self.database
        if database is None or database.retired or database.pool is not None:
            return True
        if self.autocommit != self.settings_dict["AUTOCOMMIT"]:
            return True  # a transaction by hand does not outlive its unit: it could make no room for ever
        return closes and (self.errors_occurred or (self.close_at is not None and self.close_at <= monotonic()))

    def let_go(self) -> None:
        """Its connection was reclaimed: it connects again when it is used next."""
        cast(Database, self.database).borrowers.discard(self)
        self.connection = self.physical = self._pool_in_use = None
        self.forget()

    def forget(self) -> None:
        """It is closed and nobody uses it: what a thread holds must not grow with the tenants that it has served."""
        mine = self.home()
        # Django's test runner keeps things on a wrapper.
        if mine is None or self.database is None or _context.testing:
            return
        if mine.wrappers.get(self.database) is self:
            del mine.wrappers[self.database]

    def begin_use(self, unit: Unit) -> None:
        """``unit`` begins to use a connection that is open: what Django does for all of them when a request starts."""
        if self.in_atomic_block:
            return
        if self.errors_occurred or (self.close_at is not None and self.settings_dict["CONN_MAX_AGE"]):
            self.close_if_unusable_or_obsolete()
        self.health_check_done = False
        if unit.closes and self.queries_log:
            self.queries_log.clear()

    # --- as Django's wrapper ---

    @cached_property
    def wrap_database_errors(self) -> Running:
        """Django's, which knows whether a statement is being run (each goes through it)."""
        return Running(self)

    def is_bound(self) -> bool:
        """Whether the tenant of this connection is anywhere on the stack of bound tenants."""
        return self.database is not None and _context.pinned(self.database.tenant_id) is not None

    def validate_no_broken_transaction(self) -> None:
        """Django calls this before each statement: a cursor or connection that was kept is refused elsewhere."""
        bound = _context.stack.get()
        # no call for what is the bound tenant's: each statement comes here
        if bound and self.database is not None and (bound[-1].id != self.tenant_id or self.database.retired):
            self._refuse_kept(self.database, bound)
        super().validate_no_broken_transaction()

    def _refuse_kept(self, database: Database, bound: _context.Stack) -> None:
        if bound[-1].id != self.tenant_id:
            raise TenantMismatch(
                f"a cursor or connection of {self.alias!r} is used while tenant {bound[-1].id!r} is bound"
            )
        if database.retired and not self._goes_on_in(bound[0]):
            raise TenantMismatch(
                f"a cursor or connection of {self.alias!r} was kept from before its settings were changed"
            )

    def _goes_on_in(self, unit: Unit) -> bool:
        """Whether ``unit`` began on it before its settings were replaced, or is over and resolves again."""
        return unit.over or self in unit.uses or self.in_atomic_block

    def chunked_cursor(self) -> Any:
        """Django's ``iterator()`` reads by this one: its connection makes no room before it has read all."""
        cursor = super().chunked_cursor()
        if self.half_read is None:
            self.half_read = weakref.WeakSet()
        self.half_read.add(cursor)
        return cursor

    def connect(self) -> None:
        """Connect, once there is room."""
        if self.owner is None or self.database is None:
            super().connect()
            return
        if bound := _context.stack.get():
            self._refuse_kept(self.database, bound)  # or what is opened for nobody would stay open
        if self.physical is not None:
            self.owner.closed(self)  # Django lets go of what was open
        if self.owner.database_guard is not None:
            self.owner.database_guard.admit(self.database, self.settings_dict)
        pool = self._pool_in_use = self._pool()
        place = self.owner.budget.admit() if pool is None else None
        try:
            super().connect()
            if place is not None:
                self._take(place)
            elif pool is not None:
                self.physical = pool.lent(self.connection, self)
        except BaseException as error:
            self._drop_half_open()
            if place is not None and self.physical is None:
                self.owner.budget.failed(place)
            error.__dict__["tenant_database_unreachable"] = True  # the middleware answers 503 to it
            # Without the frames below, whose variables hold the password: error pages show variables.
            raise error.with_traceback(None) from error.__cause__
        self.owner.opened(self)

    def init_connection_state(self) -> None:
        """Django's, and then the stamp, before anybody else hears of the connection."""
        super().init_connection_state()
        if self.database is not None and self.database.incarnation:
            identity_stamp.verify(self, self.database)

    def _drop_half_open(self) -> None:
        """Close what has connected and could not be made ready (by a receiver of ``connection_created``, say)."""
        if self.physical is None:
            with suppress(Exception):  # the error that brought us here is the one to tell
                super().close()
            self._pool_in_use = None

    def _take(self, place: Place) -> None:
        owner, database = cast("OpenConnections", self.owner), cast(Database, self.database)
        try:
            owner.budget.connected(place)
        except TooManyConnections:  # it took so long that its place was given to others
            super().close()
            raise
        if self.vendor == "sqlite" and self.is_in_memory_db():  # type: ignore[attr-defined]
            owner.budget.closed(PhysicalConnection(self, database))  # it would be lost with its connection
        else:
            self.physical = PhysicalConnection(self, database)

    def get_connection_params(self) -> dict[str, Any]:
        """Django's, with a limit to the time that connecting takes."""
        found: dict[str, Any] = super().get_connection_params()
        if self.vendor in ("postgresql", "mysql"):
            found.setdefault("connect_timeout", CONNECT_TIMEOUT)
        return found

    @property
    def pool(self) -> Any:
        """Of the connection that is open or being opened (django/db/backends/postgresql/base.py, since 5.1)."""
        if self.owner is None or self.vendor != "postgresql":
            return super().pool  # type: ignore[misc]
        return self._pool_in_use

    def _pool(self) -> ConnectionPool | None:
        """The database's pool, made at its first use.

        A unit of work that goes on after a change of settings connects without one: its
        database's pool was closed, and another would have to be closed again.
        """
        database, owner = cast(Database, self.database), cast("OpenConnections", self.owner)
        wanted = self.vendor == "postgresql" and self.alias != NO_DB_ALIAS and self.settings_dict["OPTIONS"].get("pool")
        if not wanted:
            return None
        with owner.budget.lock:
            if database.retired:
                return None
            if database.pool is None:
                database.pool = pool_of(self, database, owner.budget)
            return cast(ConnectionPool, database.pool)

    def close(self) -> None:
        """Close, and make room."""
        try:
            super().close()
        finally:
            # Within a transaction Django keeps the closed connection, until ``Atomic.__exit__`` sets it to None.
            if self.owner is not None and (self.connection is None or self.closed_in_transaction):
                self._pool_in_use = None
                self.owner.closed(self)

    def abandon(self) -> None:
        """Close in the middle of a transaction, which the server (or the pool) rolls back."""
        self.in_atomic_block, self.savepoint_ids, self.atomic_blocks = False, [], []
        self.close()

    def run_and_clear_commit_hooks(self) -> None:
        """Run ``on_commit`` callbacks as this tenant, also when only an alias named it, and as it was then."""
        if self.database is None or not self.run_on_commit or self.is_bound():
            return super().run_and_clear_commit_hooks()
        # What was bound then, and not what its tenant is now: the callbacks belong to this transaction.
        context = self.context or tenant_context_manager.get_in_any_state(self.tenant_id)
        before = _context.enter(context)
        try:
            return super().run_and_clear_commit_hooks()
        finally:
            _context.leave(before)


def _is_closed(cursor: Any) -> bool:
    return bool(getattr(cursor.cursor, "closed", False))


@cache
def tenant_wrapper_class(engine: str) -> type[TenantWrapper]:
    """The backend named ``engine`` as a tenant's connection."""
    return cast("type[TenantWrapper]", mixed(TenantWrapper, engine))
