"""Makes tenants' databases: on PostgreSQL, and as SQLite files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from secrets import token_urlsafe
from typing import Any, Protocol

from tenant_router import identity
from tenant_router.exceptions import ProvisioningError
from tenant_router.orm_backends.base import BaseOrmManager, BaseOrmProvisioner, DatabaseIdentity
from tenant_router.orm_backends.django_orm import database_names, location
from tenant_router.orm_backends.django_orm import settings as database_settings
from tenant_router.orm_backends.django_orm.allowed_options import POSTGRESQL, SQLITE, family
from tenant_router.orm_backends.django_orm.databases import Database, Databases
from tenant_router.orm_backends.django_orm.postgresql_server import PostgresServer
from tenant_router.orm_backends.django_orm.sqlite_files import SqliteFiles
from tenant_router.orm_backends.provisioning import Config, Names
from tenant_router.secrets import SecretText

REFERENCE = "@reference"  # what stands for a tenant's id: no tenant can be called so
ADMINISTRATION = "postgres"  # the database of PostgreSQL that is there to connect to
_PASSWORD = 24  # bytes of a generated one


class Maker(Protocol):
    """Where databases are made; what its verbs do is told at ``BaseOrmProvisioner``."""

    def check(self, stamp: DatabaseIdentity, names: Names, source: str) -> None:
        """Refuse what could not be made."""

    def create(self, stamp: DatabaseIdentity, names: Names, settings: Mapping[str, Any], source: str) -> bool:
        """Make it; ``settings`` are of who connects to it later, ``source`` is what it is copied from, if anything."""

    def remove(self, stamp: DatabaseIdentity, names: Names) -> list[str]:
        """Remove it."""

    def make_reference(self, name: str) -> None:
        """Make what others are copied from, if it is missing, and open it."""

    def lock_reference(self, name: str) -> None:
        """Shut it again."""


class DjangoProvisioner(BaseOrmProvisioner):
    """The options ``NAME_PATTERN``, ``MAINTENANCE``, ``CREATE_ROLES`` and ``REFERENCE_DATABASE`` say how."""

    def __init__(self, manager: BaseOrmManager) -> None:
        self._manager, self._templates, self._options = manager, manager.templates, manager.options
        if self._pattern:
            database_names.check_pattern(self._pattern, len(self._templates))

    def complete(self, service: str, tenant_id: str, config: Config) -> dict[str, Mapping[str, Any]]:
        """Names by ``NAME_PATTERN``; with ``CREATE_ROLES`` a role that is called as its database."""
        found = {alias: self._completed(service, tenant_id, alias, config.get(alias, {})) for alias in self._templates}
        return {**config, **found}

    def names(self, tenant_id: str, config: Config) -> dict[str, Names]:
        """The database, and the role where one is made."""
        return {alias: self._names(alias, config.get(alias, {})) for alias in self._templates}

    def check(self, stamp: DatabaseIdentity, config: Config, from_template: bool) -> None:
        """Refuse what cannot be made."""
        names = self._names(stamp.alias, config[stamp.alias])
        self._maker(stamp.alias).check(stamp, names, self._source(stamp, from_template))

    def create(self, stamp: DatabaseIdentity, config: Config, from_template: bool) -> bool:
        """Make the database and its role."""
        settings, names = (
            self._settings(stamp.alias, config[stamp.alias]),
            self._names(stamp.alias, config[stamp.alias]),
        )
        return self._maker(stamp.alias).create(stamp, names, settings, self._source(stamp, from_template))

    def remove(self, stamp: DatabaseIdentity, names: Names) -> list[str]:
        """Remove both."""
        return self._maker(stamp.alias).remove(stamp, names)

    def reference(self, service: str) -> Databases:
        """The reference database of each template, as who makes databases connects to it."""
        found = Databases()
        for alias in self._templates:
            settings = {**self._maintenance(alias), "ENGINE": self._templates[alias]["ENGINE"]}
            settings = database_settings.SettingsDict(settings | {"NAME": self._reference(service, alias)})
            database = Database(REFERENCE, alias, identity.alias_for(REFERENCE, alias), settings)
            found[alias] = found[database.alias] = database
        found.default = identity.alias_for(REFERENCE, self._manager.default_template)  # type: ignore[attr-defined]
        return found

    @contextmanager
    def refreshing(self, service: str) -> Iterator[None]:
        """Make what is missing, and shut it again."""
        names = {alias: self._reference(service, alias) for alias in self._templates}
        for alias, name in names.items():
            self._maker(alias).make_reference(name)
        try:
            yield
        finally:
            for alias, name in names.items():
                self._maker(alias).lock_reference(name)

    # --- inside ---

    @property
    def _pattern(self) -> str:
        return str(self._options.get("NAME_PATTERN", ""))

    def _completed(self, service: str, tenant_id: str, alias: str, config: Mapping[str, Any]) -> dict[str, Any]:
        found = dict(config)
        if "URL" in found:
            return found
        found.setdefault("NAME", self._name(service, tenant_id, alias))
        if self._makes_roles(alias) and "USER" not in found:
            found["USER"] = found["NAME"]
        if self._makes_roles(alias) and not {"PASSWORD", "PASS"} & found.keys():
            found["PASSWORD"] = SecretText(token_urlsafe(_PASSWORD))
        return found

    def _name(self, service: str, tenant_id: str, alias: str) -> str:
        pattern = self._pattern or database_names.default_pattern(len(self._templates))
        wanted = pattern.format(tenant=tenant_id, alias=alias, service=service)
        if self._family(alias) == POSTGRESQL:
            return database_names.postgresql_name(wanted)
        template = str(self._templates[alias]["NAME"])
        return database_names.sqlite_name(
            wanted if self._pattern else wanted + database_names.sqlite_suffix(template), template
        )

    def _reference(self, service: str, alias: str) -> str:
        name = str(self._options.get("REFERENCE_DATABASE", f"{service}_reference"))
        name = name if len(self._templates) == 1 else f"{name}_{alias}"
        if self._family(alias) == POSTGRESQL:
            return database_names.postgresql_name(name)
        template = str(self._templates[alias]["NAME"])
        return database_names.sqlite_name(name + database_names.sqlite_suffix(template), template)

    def _source(self, stamp: DatabaseIdentity, from_template: bool) -> str:
        return self._reference(stamp.service, stamp.alias) if from_template else ""

    def _names(self, alias: str, config: Mapping[str, Any]) -> dict[str, str]:
        settings = self._settings(alias, config)
        names = {"database": str(settings["NAME"])}
        if not self._makes_roles(alias):
            return names
        if not settings.get("USER") or not settings.get("PASSWORD") or not settings["PASSWORD"].isascii():
            raise ProvisioningError(
                f"the record of {alias!r} must have USER and, in ASCII, PASSWORD of the role to make"
            )
        return names | {"role": str(settings["USER"])}

    def _settings(self, alias: str, config: Mapping[str, Any]) -> Mapping[str, Any]:
        """Of the tenant's connection. Raises ``RecordInvalid``, ``ProvisioningError``."""
        template, options = self._templates[alias], self._options
        made = database_settings.build(
            template, config, options.get("ALLOW_ENGINES", ()), options.get("ALLOW_OPTIONS", ())
        )
        if family(made["ENGINE"]) != self._family(alias) or not _one_server(made, template):
            raise ProvisioningError(
                f"the record's database for {alias!r} is on another server than the template's: make it yourself, and "
                "use 'load_tenant_config --migrate'"
            )
        return made

    def _family(self, alias: str) -> str:
        found = family(self._templates[alias]["ENGINE"])
        if found not in (POSTGRESQL, SQLITE):
            raise ProvisioningError(
                f"databases of {self._templates[alias]['ENGINE']!r} cannot be made: make that for {alias!r} yourself, "
                "and use 'load_tenant_config --migrate'"
            )
        return found

    def _makes_roles(self, alias: str) -> bool:
        return bool(self._options.get("CREATE_ROLES")) and self._family(alias) == POSTGRESQL

    def _maker(self, alias: str) -> Maker:
        maintenance = self._maintenance(alias)
        return PostgresServer(maintenance) if self._family(alias) == POSTGRESQL else SqliteFiles(maintenance)

    def _maintenance(self, alias: str) -> dict[str, Any]:
        """Settings of who may make databases."""
        template = self._templates[alias]
        if self._family(alias) == SQLITE:
            return dict(template)
        given = self._options.get("MAINTENANCE", {})
        options = {**template.get("OPTIONS", {}), **given.get("OPTIONS", {})}
        options.pop("dbname", None)  # which would win over NAME
        engine = {"ENGINE": "django.db.backends.postgresql"}  # an extension's would look for that in the database
        return {**template, "NAME": ADMINISTRATION, **given, **engine, "OPTIONS": options}


def _one_server(settings: Mapping[str, Any], template: Mapping[str, Any]) -> bool:
    """Whether both are databases of one server: what makes them connects to the template's."""
    if family(settings["ENGINE"]) == SQLITE:
        return True
    places = [{place[:-1] for place in location.of_settings(each)} for each in (settings, {**template, "NAME": "x"})]
    return places[0] == places[1]
