"""``django.db.connections``, made tenant-aware in place.

The class of the one handler object is swapped, so everybody who imported it before is
covered. Template aliases lead to the bound tenant's connection; tenants' own aliases resolve;
enumeration yields the static aliases only, whatever the number of tenants.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from time import monotonic
from typing import Any, NoReturn

from asgiref.local import Local
from django.db import connections
from django.db.utils import ConnectionHandler

from tenant_router import context as _context
from tenant_router import identity
from tenant_router.context import TenantContext
from tenant_router.exceptions import ConfigurationError, TenantMismatch
from tenant_router.managers import tenant_context_manager
from tenant_router.orm_backends.django_orm import resolving
from tenant_router.orm_backends.django_orm.databases import Database
from tenant_router.orm_backends.django_orm.resolving import ORM, Owner, is_plain, tenant_of_assignments
from tenant_router.orm_backends.django_orm.slots import Slots
from tenant_router.orm_backends.django_orm.wrapper import tenant_wrapper_class, unbound_wrapper_class


class TenantConnectionHandler(ConnectionHandler):
    """Django's connection handler, aware of tenants."""

    _manager: Owner
    _slots: Slots
    _connections: Any

    def __getitem__(self, alias: str) -> Any:
        bound = _context.stack.get() or _context.ambient
        if bound and alias not in self._manager.reserved_aliases:
            database = bound[-1].parts[ORM].get(alias)
            if database is not None:
                return self._wrapper(database)
        return self._unusual(alias)

    def __setitem__(self, alias: str, wrapper: Any) -> None:
        database = self._assigned(alias)
        if database is not None:
            self._slots.mine().wrappers[database] = wrapper
        elif alias in self._manager.templates and not is_plain(assigned=True):
            self._slots.mine().unbound[alias] = wrapper
        else:
            super().__setitem__(alias, wrapper)

    def __delitem__(self, alias: str) -> None:
        database = self._assigned(alias)
        if database is not None:
            del self._slots.mine().wrappers[database]
        elif alias in self._manager.templates and not is_plain(assigned=True):
            del self._slots.mine().unbound[alias]
        else:
            super().__delitem__(alias)

    def __iter__(self) -> Iterator[str]:
        return iter(self.settings)

    def __contains__(self, alias: object) -> bool:
        return alias in self.settings

    def all(self, initialized_only: bool = False) -> list[Any]:
        """The static aliases' connections; with ``initialized_only`` those that this thread has opened.

        Request start and end walk the latter: the cost follows what was opened, never the
        number of tenants. Connections whose settings were replaced are closed here.
        """
        if not initialized_only:
            return [self[alias] for alias in self]
        slot = self._slots.mine_if_any()
        opened = [] if slot is None else slot.current()
        aliases = self if _context.testing else self._manager.reserved_aliases
        if aliases:
            opened += [getattr(self._connections, alias) for alias in aliases if hasattr(self._connections, alias)]
        return opened

    def create_connection(self, alias: str) -> Any:
        """A connection to a static alias; in a test run it asks whether that is a test database."""
        wrapper = super().create_connection(alias)
        if self._slots.gate is not None and alias in self._manager.templates:
            self._slots.gate.guard(wrapper)
        return wrapper

    def _assigned(self, alias: str) -> Database | None:
        """The database whose connection an assignment means."""
        database = self._manager.database_of(alias)
        test = tenant_of_assignments() if database is None else None
        return test.parts[ORM].get(alias) if test is not None else database

    def _wrapper(self, database: Database) -> Any:
        slot = self._slots.mine()
        if not slot.in_unit:
            slot.begin()
        wrapper = slot.wrappers.get(database)
        if wrapper is None:
            slot.close_unbound()  # a thread may end no unit ever: one that names tenants by their aliases alone
            wrapper = slot.wrappers[database] = self._create(database)
            slot.settled = -1
        wrapper.last_used = database.last_used = monotonic()
        return wrapper

    def _create(self, database: Database) -> Any:
        wrapper = tenant_wrapper_class(database.settings["ENGINE"])(database.settings, database.alias)
        wrapper.attach(database, self._slots, self._manager.max_open_connections)
        database.keep_type_infos(wrapper)
        return wrapper

    def _unusual(self, alias: str) -> Any:
        """Anything but the bound tenant's databases."""
        if alias in self._manager.templates and not is_plain():
            return self._unbound(alias)
        return self._in_transaction(alias) or self._by_alias(alias)

    def _by_alias(self, alias: str) -> Any:
        database = self._manager.database_of(alias)
        return super().__getitem__(alias) if database is None else self._wrapper(database)

    def _in_transaction(self, alias: str) -> Any:
        """The connection of a transaction that an alias alone named: it ends where it began, whatever has changed."""
        slot = None if _context.stack.get() else self._slots.mine_if_any()
        open_ones = slot.in_transactions() if slot is not None else ()
        return next((wrapper for wrapper in open_ones if wrapper.alias == alias), None)

    def _unbound(self, alias: str) -> Any:
        unbound = self._slots.mine().unbound
        if alias not in unbound:
            settings = self.settings[alias]
            unbound[alias] = unbound_wrapper_class(settings["ENGINE"])(settings, alias)
        return unbound[alias]


def install(manager: Owner, slots: Slots) -> None:
    """Make ``django.db.connections`` tenant-aware; again with another manager is allowed."""
    handler: Any = connections
    handler._manager, handler._slots = manager, slots
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
