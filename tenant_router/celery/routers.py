"""Keeps the tables of django-celery-beat in one central database."""

from __future__ import annotations

from typing import Any

from tenant_router.conf import CELERY, conf
from tenant_router.exceptions import ConfigurationError

APP = "django_celery_beat"


class BeatRouter:
    """Sends the models of django-celery-beat to ``TENANT_ROUTER_CELERY_SETTINGS["BEAT_ALIAS"]``, a reserved alias.

    It stands in ``DATABASE_ROUTERS`` before ours. Raises ``ConfigurationError`` when the alias is not set.
    """

    def db_for_read(self, model: Any, **hints: Any) -> str | None:
        """The central alias for what is django-celery-beat's."""
        return _alias() if model._meta.app_label == APP else None

    db_for_write = db_for_read

    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool | None:
        """Its tables are made there, and nowhere else."""
        return db == _alias() if app_label == APP else None


def _alias() -> str:
    alias: str = conf.celery["BEAT_ALIAS"]
    if not alias:
        raise ConfigurationError(f"{CELERY}['BEAT_ALIAS'] is not set: name the reserved alias of the periodic tasks")
    return alias
