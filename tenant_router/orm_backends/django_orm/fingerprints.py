"""What a database's schema is like, as a hash: the migrations that are applied, and what follows from the code.

Two databases with one fingerprint need the same migrations. One with that of the release needs none. A fingerprint
names the place of its database, too: what is known of one is not known of that which a record leads to later.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from django.apps import apps
from django.conf import settings
from django.contrib.auth import get_permission_codename
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder

from tenant_router.orm_backends.django_orm import location

Key = tuple[str, str]  # app label and name of a migration


class Release(NamedTuple):
    """What this code wants: its migrations, what it makes besides, and the fingerprint of both."""

    migrations: frozenset[Key]
    made: str
    fingerprint: str


def of_release(database: Mapping[str, Any]) -> str:
    """The fingerprint of the database with the settings ``database`` if it needs nothing."""
    return f"{_release().fingerprint}@{_place(database)}"


def of_database(connection: Any) -> str:
    """The fingerprint of a database, by one statement. Raises what the driver raises."""
    release, applied = _release(), MigrationRecorder(connection).applied_migrations()
    return f"{_hashed(release.migrations & applied.keys(), release.made)}@{_place(connection.settings_dict)}"


def _release() -> Release:
    # A test may override these; elsewhere they are what they are.
    return _read_release(tuple(app.name for app in apps.get_app_configs()), repr(settings.MIGRATION_MODULES))


@lru_cache(maxsize=1)
def _read_release(*what: object) -> Release:
    # Without a connection the loader takes squashed migrations for those that they replace, as a database has them
    # once it was migrated (db/migrations/loader.py).
    migrations = frozenset(MigrationLoader(None).graph.nodes)
    made = _made_by_code()
    return Release(migrations, made, _hashed(migrations, made))


def _hashed(migrations: Iterable[Key], made: str) -> str:
    told = hashlib.sha256(made.encode())
    for app, name in sorted(migrations):
        told.update(f"{app}.{name}\n".encode())
    return told.hexdigest()[:32]


def _place(database: Mapping[str, Any]) -> str:
    return hashlib.sha256(repr(sorted(location.of_settings(database))).encode()).hexdigest()[:16]


def _made_by_code() -> str:
    """What ``migrate`` makes besides: tables of apps without migrations, content types and permissions of all models.

    The databases routers and the strategy may leave a part of it out, so they are a part of it.
    """
    strategies = [str(getattr(settings, "TENANT_ROUTER_ORM_SETTINGS", "")), str(settings.DATABASE_ROUTERS)]
    models = sorted(f"{model._meta.label} {' '.join(_permissions(model))}" for model in apps.get_models())
    return "\n".join([*strategies, *models])


def _permissions(model: Any) -> list[str]:
    meta = model._meta
    own = [get_permission_codename(action, meta) for action in meta.default_permissions]
    return [*own, *(codename for codename, _ in meta.permissions)]
