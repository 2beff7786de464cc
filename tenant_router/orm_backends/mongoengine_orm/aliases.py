"""Replacements for MongoEngine's dictionaries of connections: template aliases lead to the bound tenant."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tenant_router import context as _context
from tenant_router.orm_backends.mongo.manager import MongoManager


class TenantProxy:
    """A lazy proxy of an object of the bound tenant, found anew at each use.

    Without a tenant ``resolve`` raises ``TenantContextMissing``.
    """

    def __init__(self, resolve: Callable[[], Any]) -> None:
        self._tr_resolve = resolve

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tr_resolve(), name)

    def __getitem__(self, name: Any) -> Any:
        return self._tr_resolve()[name]


class AliasDict(dict[str, Any]):
    """The base of the three: a dictionary by alias that hides, and never uses, what is stored for a template alias."""

    def __init__(self, original: dict[str, Any], manager: MongoManager) -> None:
        self._manager = manager
        replaced = manager.replaced_aliases
        self.hidden = {alias: value for alias, value in original.items() if alias in replaced}
        super().__init__({alias: value for alias, value in original.items() if alias not in replaced})

    def __contains__(self, alias: object) -> bool:
        return alias in self._manager.replaced_aliases or super().__contains__(alias)

    def __setitem__(self, alias: str, value: Any) -> None:
        if alias in self._manager.replaced_aliases:
            self.hidden[alias] = value
        else:
            super().__setitem__(alias, value)

    def __delitem__(self, alias: str) -> None:
        if alias not in self._manager.replaced_aliases:
            super().__delitem__(alias)


class ConnectionSettings(AliasDict):
    """``_connection_settings``: to ``connect()`` a template alias is connected already, with whatever it asks for."""

    def __missing__(self, alias: str) -> Any:
        if alias in self._manager.replaced_aliases:
            return _EqualToAnything()
        raise KeyError(alias)


class Connections(AliasDict):
    """``_connections``: clients. Without a tenant, as at start-up, ``connect()`` gets a proxy that it may keep."""

    def __missing__(self, alias: str) -> Any:
        if alias not in self._manager.templates:
            return self._manager.central_database(alias).database.client  # in a test run; else a KeyError

        def resolve() -> Any:
            return self._manager.database_of(alias).database.client

        return resolve() if _context.current() is not None else TenantProxy(resolve)


class Databases(AliasDict):
    """``_dbs``: databases. A reserved alias that the application has not connected is connected by the settings."""

    def __init__(self, original: dict[str, Any], manager: MongoManager, settings: ConnectionSettings) -> None:
        super().__init__(original, manager)
        self._settings = settings

    def __contains__(self, alias: object) -> bool:
        return super().__contains__(alias) or (alias in self._manager.reserved_aliases and alias not in self._settings)

    def __missing__(self, alias: str) -> Any:
        if alias in self._manager.templates:
            return self._manager.database_of(alias).database
        return self._manager.central_database(alias).database


class _EqualToAnything:
    # connect() compares its arguments with the settings that it finds, and refuses different ones.
    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False

    __hash__ = None  # type: ignore[assignment]
