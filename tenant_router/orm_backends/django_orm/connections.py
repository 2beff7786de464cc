"""``django.db.connections``, made tenant-aware in place.

The class of the one handler object is swapped, so everybody who imported it before is
covered. Template aliases lead to the bound tenant's connection; tenants' own aliases resolve;
enumeration yields the static aliases only, whatever the number of tenants.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, NoReturn

from asgiref.local import Local
from django.db import connections
from django.db.utils import ConnectionHandler

from tenant_router import context as _context
from tenant_router import identity
from tenant_router.exceptions import ConfigurationError, TenantMismatch
from tenant_router.managers import tenant_context_manager
from tenant_router.orm_backends.django_orm import resolving
from tenant_router.orm_backends.django_orm.alias_wrapper import NamedByAlias, named_by_alias_class
from tenant_router.orm_backends.django_orm.databases import Database
from tenant_router.orm_backends.django_orm.open_connections import OpenConnections, ThreadConnections
from tenant_router.orm_backends.django_orm.resolving import ORM, Owner, is_plain, tenant_of_assignments
from tenant_router.orm_backends.django_orm.unbound_wrapper import unbound_wrapper_class
from tenant_router.orm_backends.django_orm.wrapper import TenantWrapper, tenant_wrapper_class
from tenant_router.tenant_context import DeniedContext, TenantContext
from tenant_router.unit_of_work import Unit


class TenantConnectionHandler(ConnectionHandler):
    """Django's connection handler, aware of tenants."""

    _manager: Owner
    _open: OpenConnections
    _connections: Any

    def __getitem__(self, alias: str) -> Any:
        bound = _context.stack.get() or _context.ambient
        if bound and alias not in self._manager.reserved_aliases:
            if bound[0].over:
                bound = _context.bound()  # or what was bound by a unit that has ended would be used
            database = bound[-1].parts[ORM].get(alias) if bound else None
            if database is not None:
                return self._wrapper(database, bound[0])
        return self._unusual(alias)

    def __setitem__(self, alias: str, wrapper: Any) -> None:
        database = self._assigned(alias)
        if database is not None:
            self._open.mine().wrappers[database] = wrapper
        elif alias in self._manager.templates and not is_plain(assigned=True):
            self._open.mine().unbound[alias] = wrapper
        else:
            super().__setitem__(alias, wrapper)

    def __delitem__(self, alias: str) -> None:
        database = self._assigned(alias)
        if database is not None:
            del self._open.mine().wrappers[database]
        elif alias in self._manager.templates and not is_plain(assigned=True):
            del self._open.mine().unbound[alias]
        else:
            super().__delitem__(alias)

    def __iter__(self) -> Iterator[str]:
        return iter(self.settings)

    def __contains__(self, alias: object) -> bool:
        return alias in self.settings

    def all(self, initialized_only: bool = False) -> list[Any]:
        """The static aliases' connections; with ``initialized_only`` those that are at work in this thread.

        These are what the unit of work here has used, be there one, and what explicit aliases have named. Request
        start and end walk them: the cost follows what was used, never the number of open connections.
        """
        if not initialized_only:
            return [self[alias] for alias in self]
        mine = self._open.mine_if_any()
        opened = [] if mine is None else self._at_work(mine)
        return opened + self._initialized_static()

    def close_all(self) -> None:
        """Close every connection of this thread."""
        mine = self._open.mine_if_any()
        for wrapper in [*mine.wrappers.values()] if mine is not None else ():
            wrapper.close()
        for wrapper in self._initialized_static():
            wrapper.close()

    def _at_work(self, mine: ThreadConnections) -> list[Any]:
        if _context.testing:
            return [*mine.wrappers.values()]  # a suite's own connections are used where nothing is bound
        bound = _context.stack.get()
        used = [*mine.in_use(bound[0])] if bound else []
        return used + [wrapper for wrapper in mine.by_alias if wrapper not in used]

    def _initialized_static(self) -> list[Any]:
        aliases = self if _context.testing else self._manager.reserved_aliases
        return [getattr(self._connections, alias) for alias in aliases if hasattr(self._connections, alias)]

    def create_connection(self, alias: str) -> Any:
        """A connection to a static alias; in a test run it asks whether that is a test database."""
        wrapper = super().create_connection(alias)
        if self._open.database_guard is not None and alias in self._manager.templates:
            self._open.database_guard.guard(wrapper)
        return wrapper

    def _assigned(self, alias: str) -> Database | None:
        """The database whose connection an assignment means."""
        database = self._manager.database_of(alias)
        test = tenant_of_assignments() if database is None else None
        return test.parts[ORM].get(alias) if test is not None else database

    def _wrapper(self, database: Database, unit: Unit) -> Any:
        mine = self._open.mine()
        wrapper = mine.wrappers.get(database)
        if wrapper is None or mine.outer:
            wrapper = self._begun_by_alias(mine, database) or wrapper or self._create(mine, database)
        if wrapper not in unit.uses:
            if not self._open.use(wrapper, unit):
                return self[database.alias]  # the unit has ended meanwhile: its tenant is resolved again
            if wrapper.connection is not None and wrapper in unit.uses:
                wrapper.begin_use(unit)
        return wrapper

    def _begun_by_alias(self, mine: ThreadConnections, database: Database) -> Any:
        """The connection of a transaction that an alias has begun here: its tenant, bound inside, goes on with it."""
        return mine.in_transaction(database.alias) if mine.outer else None

    def _create(self, mine: ThreadConnections, database: Database) -> TenantWrapper:
        made = tenant_wrapper_class(database.settings["ENGINE"])(database.settings, database.alias)
        made.attach(database, self._open, mine)
        database.keep_type_infos(made)
        mine.wrappers[database] = made
        return made

    def _unusual(self, alias: str) -> Any:
        """Anything but the bound tenant's databases."""
        if alias in self._manager.templates and not is_plain():
            return self._unbound(alias)
        mine = None if _context.stack.get() else self._open.mine_if_any()
        return (mine is not None and mine.in_transaction(alias)) or self._by_alias(alias)

    def _by_alias(self, alias: str) -> Any:
        found = self._manager.found_by_alias(alias)
        if found is None:
            return super().__getitem__(alias)
        context, database = found
        mine = self._open.mine()
        wrapper = mine.wrappers.get(database) or self._create(mine, database)
        if not isinstance(wrapper, NamedByAlias):
            wrapper.__class__ = named_by_alias_class(database.settings["ENGINE"])
        wrapper.context = context
        mine.named_by_alias(wrapper)
        return wrapper

    def _unbound(self, alias: str) -> Any:
        unbound = self._open.mine().unbound
        if alias not in unbound:
            settings = self.settings[alias]
            unbound[alias] = unbound_wrapper_class(settings["ENGINE"])(settings, alias)
        return unbound[alias]


def install(manager: Owner, open_connections: OpenConnections) -> None:
    """Make ``django.db.connections`` tenant-aware; again with another manager is allowed."""
    handler: Any = connections
    handler._manager, handler._open = manager, open_connections
    handler.__class__ = TenantConnectionHandler
    handler.settings = resolving.install(handler.settings, manager)
    for alias in manager.templates:
        # What was looked up before stays behind in asgiref's local; it must not be found as the template's.
        if hasattr(handler._connections, alias):
            if getattr(handler._connections, alias).connection is not None:
                getattr(handler._connections, alias).close()  # which an event loop refuses: some servers load us in one
            delattr(handler._connections, alias)


class ClosedConnectionHandler(ConnectionHandler):
    """Stands in while our settings are faulty: connections can be looked up, as checks do, and not be used."""

    def create_connection(self, alias: str) -> Any:
        """A connection that refuses to connect."""
        wrapper: Any = super().create_connection(alias)
        wrapper.connect = partial(_refuse_faulty, alias)
        return wrapper


def _refuse_faulty(alias: str) -> NoReturn:
    raise ConfigurationError(
        f"database alias {alias!r}: the settings of tenant_router are incomplete: run 'python manage.py check'"
    )


def close_for_good() -> None:
    """Refuse to connect anywhere, until :func:`install`: a template's own database must not be reached."""
    handler: Any = connections
    handler.close_all()
    handler._connections = Local(handler.thread_critical)
    handler.__class__ = ClosedConnectionHandler


def uninstall() -> None:
    """Undo :func:`install`."""
    if isinstance(connections, TenantConnectionHandler):
        handler: Any = connections
        handler.settings = resolving.uninstall(handler.settings)
        handler.__class__ = ConnectionHandler


def template_of(alias: str) -> str:
    """The template of a tenant's connection alias; any other alias as it is."""
    if not isinstance(connections, TenantConnectionHandler) or alias in list(connections):
        return alias
    bound = _context.current()
    known = bound is not None and not isinstance(bound, DeniedContext)
    database: Database | None = bound.parts[ORM].get(alias) if bound is not None and known else None
    if database is not None:  # whose record need not be published
        return database.template
    for tenant_id, template in identity.candidates(alias, connections._manager.templates):
        if tenant_context_manager.contains(tenant_id):
            return template
    return alias


def mismatch(database: Database, bound: TenantContext) -> TenantMismatch:
    """The error for the use of one tenant's alias under another tenant."""
    return TenantMismatch(
        f"connection alias {database.alias!r} belongs to tenant {database.tenant_id!r}, "
        f"and tenant {bound.id!r} is bound here"
    )
