"""What an alias means now: ``connections.settings``, and whose databases are the templates' own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any, Protocol

from django.conf import settings as django_settings

from tenant_router import context as _context
from tenant_router.log import redact
from tenant_router.managers import tenant_context_manager
from tenant_router.orm_backends.django_orm.databases import Database
from tenant_router.tenant_context import TenantContext

ORM = "django_orm"


class Owner(Protocol):
    """What the handler asks of the manager that installs it."""

    orm_id: str
    templates: dict[str, Mapping[str, Any]]
    default_template: str
    reserved_aliases: tuple[str, ...]
    options: Mapping[str, Any]
    max_open_connections: int

    def database_of(self, alias: str) -> Database | None:
        """The tenant database that ``alias`` means now, if it means one."""

    def found_by_alias(self, alias: str) -> tuple[TenantContext, Database] | None:
        """The tenant that a connection alias names, and its database."""


class SettingsDatabases(dict[str, Any]):
    """``settings.DATABASES``: who reads a tenant's or a template's alias there finds the bound tenant's settings.

    It holds the static aliases with the settings that the project gave them: they are what is
    enumerated, and :meth:`raw` is how they are read. A ``dict``, because Django's debug page hides
    passwords in dictionaries only.
    """

    def __init__(self, static: Mapping[str, Any], manager: Owner) -> None:
        super().__init__(static)
        self._manager = manager

    def raw(self, alias: str) -> Any:
        """What the project's settings say of a static alias. Raises ``KeyError``."""
        return super().__getitem__(alias)

    def __getitem__(self, alias: str) -> Any:
        database = self._manager.database_of(alias)
        return super().__getitem__(alias) if database is None else database.settings

    def __contains__(self, alias: object) -> bool:
        return super().__contains__(alias) or (
            isinstance(alias, str) and tenant_context_manager.owner_of(alias) is not None
        )

    def get(self, alias: str, default: Any = None) -> Any:
        """The settings of an alias, or ``default``."""
        try:
            return self[alias]
        except KeyError:
            return default

    def items(self) -> Any:
        """Each static alias with what it means now."""
        return [(alias, self[alias]) for alias in self]

    def values(self) -> Any:
        """What the static aliases mean now."""
        return [self[alias] for alias in self]

    def copy(self) -> dict[str, Any]:
        """A plain dictionary of what the static aliases mean now."""
        return dict(self.items())

    def __repr__(self) -> str:
        return repr(redact({alias: dict(settings) for alias, settings in self.items()}))  # which diffsettings prints

    def __reduce__(self) -> Any:
        return dict, (dict(super().items()),)


class TenantDatabases(MutableMapping[str, Any]):
    """``connections.settings``: resolves the aliases of all tenants, enumerates the static ones.

    A template alias has the settings of the bound tenant's database; without a tenant those
    of the template, with ``ATOMIC_REQUESTS`` off, because Django would open a transaction for
    every unbound view. ``static`` is the dictionary of the project's settings itself: a test
    suite may change it.
    """

    def __init__(self, static: SettingsDatabases, manager: Owner) -> None:
        self.static = static
        self._manager = manager
        self._unbound = {alias: {**static.raw(alias), "ATOMIC_REQUESTS": False} for alias in manager.templates}

    def __getitem__(self, alias: str) -> Any:
        database = self._manager.database_of(alias)
        if database is not None:
            return database.settings
        if alias in self._unbound and not is_plain():
            return self._unbound[alias]
        return self.static.raw(alias)

    def __setitem__(self, alias: str, settings: Any) -> None:
        self.static[alias] = settings

    def __delitem__(self, alias: str) -> None:
        del self.static[alias]

    def __iter__(self) -> Iterator[str]:
        return iter(self.static)

    def __len__(self) -> int:
        return len(self.static)

    def items(self) -> Any:
        """Each static alias with what it means now: Django asks at each request (core/handlers/base.py)."""
        return [(alias, self[alias]) for alias in self.static]

    def __contains__(self, alias: object) -> bool:
        return alias in self.static

    def copy(self) -> dict[str, Any]:
        """A plain dictionary of what the static aliases mean now."""
        return dict(self)


def install(static: Any, manager: Owner) -> TenantDatabases:
    """Have ``settings.DATABASES`` resolve; returns the same for ``connections.settings``, which were ``static``."""
    given = django_settings.DATABASES
    if isinstance(static, TenantDatabases):
        static = static.static
    resolving = SettingsDatabases(dict.copy(static), manager)
    # One object, as with Django, unless a test has given one of them other contents.
    django_settings.DATABASES = resolving if given is static else SettingsDatabases(dict.copy(given), manager)
    return TenantDatabases(resolving, manager)


def uninstall(resolving: TenantDatabases) -> dict[str, Any]:
    """Undo :func:`install`; returns what ``connections.settings`` were."""
    static, given = dict.copy(resolving.static), django_settings.DATABASES
    if isinstance(given, SettingsDatabases):
        django_settings.DATABASES = static if given is resolving.static else dict.copy(given)
    return static


def is_plain(assigned: bool = False) -> bool:
    """Whether a test tenant is bound that lives in the templates' own databases."""
    bound = _context.current() or (tenant_of_assignments() if assigned else None)
    return bound is not None and bound.parts[ORM].plain is True


def tenant_of_assignments() -> TenantContext | None:
    """Whose connections are assigned where nothing is bound: a live server's thread is given the test's own."""
    return tenant_context_manager.any_host if _context.current() is None else None
