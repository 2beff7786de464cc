"""The error responses (404, 410, 503) to requests whose tenant cannot be served."""

from __future__ import annotations

import logging

from django.http import HttpResponse

from tenant_router.exceptions import TenantDeleted, TenantUnavailable, TenantUnresolved

logger = logging.getLogger(__name__)

RETRY_AFTER = "10"  # seconds


def refusal(error: TenantUnresolved) -> HttpResponse:
    """404, 410 or 503: made without any database, and never an echo of what was asked for."""
    response = _answer(error)
    response.tenant_router_refusal = True  # type: ignore[attr-defined]  # for response_log
    return response


def _answer(error: TenantUnresolved) -> HttpResponse:
    if isinstance(error, TenantUnavailable):
        logger.warning("refused: %s", error, extra={"tenant_id": error.tenant_id})
        return HttpResponse(
            "Service temporarily unavailable.\n",
            status=503,
            content_type="text/plain",
            headers={"Retry-After": RETRY_AFTER},
        )
    if isinstance(error, TenantDeleted):
        return HttpResponse("Gone.\n", status=410, content_type="text/plain")
    return HttpResponse("Not found.\n", status=404, content_type="text/plain")
