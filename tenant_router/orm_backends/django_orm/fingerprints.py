"""What a database's schema is like, as a hash: the migrations that are applied, and what follows from the code.

Two databases with one fingerprint need the same migrations. One with that of the release needs none. A fingerprint
names the place of its database, too: what is known of one is not known of that which a record leads to later.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from django.apps import apps
from django.conf import settings
from django.contrib.auth import get_permission_codename
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder

from tenant_router.orm_backends.django_orm import location

Key = tuple[str, str]  # app label and name of a migration


@cache
def migrations_of_release() -> frozenset[Key]:
    """Every migration that this code has. Without a connection the loader takes squashed ones for those they replace,
    as a database has them once it was migrated.
    """
    return frozenset(MigrationLoader(None).graph.nodes)


def of_release(settings: Mapping[str, Any]) -> str:
    """The fingerprint of the database with these ``settings`` if it needs nothing."""
    return f"{_of_release()}@{_place(settings)}"


def of_database(connection: Any) -> str:
    """The fingerprint of a database, by one statement. Raises what the driver raises."""
    applied = MigrationRecorder(connection).applied_migrations()
    return f"{_hashed(migrations_of_release() & applied.keys())}@{_place(connection.settings_dict)}"


@cache
def _of_release() -> str:
    return _hashed(migrations_of_release())


def _hashed(migrations: Iterable[Key]) -> str:
    told = hashlib.sha256(_made_by_code().encode())
    for app, name in sorted(migrations):
        told.update(f"{app}.{name}\n".encode())
    return told.hexdigest()[:32]


def _place(settings: Mapping[str, Any]) -> str:
    return hashlib.sha256(repr(sorted(location.of_settings(settings))).encode()).hexdigest()[:16]


@cache
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
