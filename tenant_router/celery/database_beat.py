"""django-celery-beat with tenants: its rows are central, and a row's headers say for which tenants it is."""

from __future__ import annotations

from django_celery_beat.schedulers import DatabaseScheduler

from tenant_router.celery.beat import TenantFanOut


class TenantDatabaseScheduler(TenantFanOut, DatabaseScheduler):  # type: ignore[misc]
    """``CELERY_BEAT_SCHEDULER = "tenant_router.celery.database_beat:TenantDatabaseScheduler"``."""
