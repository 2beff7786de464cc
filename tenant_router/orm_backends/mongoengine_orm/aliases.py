"""What MongoEngine keeps by connection alias, with the template aliases leading to the bound tenant."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tenant_router import context as _context
from tenant_router.orm_backends.mongo.manager import MongoManager


class Late:
    """Stands for what belongs to whoever is bound when it is used, and raises ``TenantContextMissing`` for nobody."""

    def __init__(self, resolve: Callable[[], Any]) -> None:
        self._tr_resolve = resolve

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tr_resolve(), name)

    def __getitem__(self, name: Any) -> Any:
        return self._tr_resolve()[name]


class ByAlias(dict[str, Any]):
    """One of MongoEngine's dictionaries. What is stored for a template alias is hidden, and never used."""

    def __init__(self, original: dict[str, Any], manager: MongoManager) -> None:
        self._manager = manager
        self.hidden = {alias: value for alias, value in original.items() if alias in manager.templates}
        super().__init__({alias: value for alias, value in original.items() if alias not in manager.templates})

    def __contains__(self, alias: object) -> bool:
        return alias in self._manager.templates or super().__contains__(alias)

    def __setitem__(self, alias: str, value: Any) -> None:
        if alias in self._manager.templates:
            self.hidden[alias] = value
        else:
            super().__setitem__(alias, value)

    def __delitem__(self, alias: str) -> None:
        if alias not in self._manager.templates:
            super().__delitem__(alias)


class Settings(ByAlias):
    """``_connection_settings``: to ``connect()`` a template alias is connected already, with whatever it asks for."""

    def __missing__(self, alias: str) -> Any:
        if alias in self._manager.templates:
            return _Agreeing()
        raise KeyError(alias)


class Clients(ByAlias):
    """``_connections``. Without a tenant there is one that can be kept, as ``connect()`` is called at start-up."""

    def __missing__(self, alias: str) -> Any:
        if alias not in self._manager.templates:
            raise KeyError(alias)

        def resolve() -> Any:
            return self._manager.database_of(alias).database.client

        return resolve() if _context.current() is not None else Late(resolve)


class Databases(ByAlias):
    """``_dbs``. A reserved alias that the application has not connected is connected by the settings."""

    def __init__(self, original: dict[str, Any], manager: MongoManager, settings: Settings) -> None:
        super().__init__(original, manager)
        self._settings = settings

    def __contains__(self, alias: object) -> bool:
        return super().__contains__(alias) or (alias in self._manager.reserved_aliases and alias not in self._settings)

    def __missing__(self, alias: str) -> Any:
        if alias in self._manager.templates:
            return self._manager.database_of(alias).database
        return self._manager.central_database(alias).database


class _Agreeing:
    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False

    __hash__ = None  # type: ignore[assignment]
