"""``celery.backend_cleanup``, which beat sends once a day: each tenant's results are cleaned, where they have some."""

from __future__ import annotations

import logging
from typing import Any

from tenant_router import context as _context
from tenant_router.celery import patching
from tenant_router.celery.headers import TENANT
from tenant_router.config_store.base import ACTIVE
from tenant_router.exceptions import TenantContextMissing
from tenant_router.managers import tenant_context_manager

logger = logging.getLogger(__name__)

TASK = "celery.backend_cleanup"


def fan_out_where_needed(task: Any) -> None:
    """Have the task, where no tenant is bound and its backend needs one, send itself for each active tenant."""

    def make(run: Any) -> Any:
        def cleanup(*args: Any, **kwargs: Any) -> Any:
            try:
                return run(*args, **kwargs)
            except TenantContextMissing:
                if _context.current() is not None:
                    raise
                return _sent_for_each(task)

        return cleanup

    patching.replace(task, "run", make)


def _sent_for_each(task: Any) -> None:
    sent = 0
    for tenant_id in tenant_context_manager.get_tenant_ids():
        if tenant_context_manager.state_of(tenant_id) == ACTIVE:
            task.apply_async(headers={TENANT: tenant_id})
            sent += 1
    logger.info("%s: sent for each of %d tenants", TASK, sent)
