"""Keeps the ledger true whatever migrates a tenant's database: ``migrate_all``, ``migrate --tenant-id``, code."""

from __future__ import annotations

from typing import Any

from django.apps import AppConfig, apps
from django.db import DEFAULT_DB_ALIAS, connections
from django.db.models.signals import post_migrate, pre_migrate

from tenant_router import context as _context
from tenant_router import runtime
from tenant_router.fleet.ledger import Ledger

_UID = "tenant_router.fleet.ledger"


def connect() -> None:
    """Hear of each migration; idempotent."""
    # ``migrate`` sends both for each app that has a models module, in the order of INSTALLED_APPS, when it has made
    # its plan and when it is done (django/core/management/sql.py, 4.2 to 6.0); it sends neither for ``--plan``.
    pre_migrate.connect(_begins, dispatch_uid=_UID)
    post_migrate.connect(_ends, dispatch_uid=_UID)


def disconnect() -> None:
    """Undo :func:`connect`."""
    pre_migrate.disconnect(dispatch_uid=_UID)
    post_migrate.disconnect(dispatch_uid=_UID)


def _begins(sender: AppConfig, using: str = DEFAULT_DB_ALIAS, **kwargs: Any) -> None:
    alias = _tenants_alias(using)
    if alias and sender is _with_models()[0]:
        Ledger(runtime.get().store).write(alias, None)
        # The last receiver of the last app: what others do after a migration is a part of it, and may fail.
        post_migrate.disconnect(dispatch_uid=_UID)
        post_migrate.connect(_ends, dispatch_uid=_UID)


def _ends(sender: AppConfig, using: str = DEFAULT_DB_ALIAS, **kwargs: Any) -> None:
    alias = _tenants_alias(using)
    if alias and sender is _with_models()[-1]:
        # only now: a server that migrates nothing need not import what migrations need
        from tenant_router.orm_backends.django_orm import fingerprints

        Ledger(runtime.get().store).write(alias, fingerprints.of_database(connections[using]))


def _with_models() -> list[AppConfig]:
    return [app for app in apps.get_app_configs() if app.models_module is not None]


def _tenants_alias(using: str) -> str:
    """The own alias of the tenant's database that ``using`` means; empty for reserved ones and in test runs."""
    if _context.testing or not runtime.is_installed():
        return ""
    database = getattr(connections[using], "database", None)
    return database.alias if database is not None else ""
