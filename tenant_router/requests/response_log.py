"""Logging of responses of status 400 and more, which handlers may write to a tenant's database.

Django logs them when its chain of middleware has returned (django/core/handlers/base.py), which
is after the tenant was left. They are logged before, while it is bound. Where nobody is bound, or
the tenant's database is away, a handler that needs it fails alone, and the response is answered.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import wraps
from typing import Any

from asgiref.sync import sync_to_async
from django.core.handlers import base, exception
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from tenant_router.exceptions import TenantRouterError

logger = logging.getLogger("django.request")
_base: Any = base
_exception: Any = exception


def install() -> None:
    """Have a response answered whose logging needs a tenant's database that cannot be had; idempotent."""
    if not hasattr(_base.log_response, "tenant_router"):
        # Both modules import the function of django/utils/log.py by name.
        _base.log_response = _exception.log_response = _tolerant(_base.log_response)


def log_bound(request: HttpRequest, response: HttpResponseBase) -> None:
    """Log as Django is about to; it does not do it again for what has been logged."""
    _base.log_response("%s: %s", response.reason_phrase, request.path, response=response, request=request)


async def alog_bound(request: HttpRequest, response: HttpResponseBase) -> None:
    """:func:`log_bound` in a thread, as Django does it, because handlers may use a database."""
    await sync_to_async(log_bound, thread_sensitive=False)(request, response)


def _tolerant(original: Callable[..., None]) -> Callable[..., None]:
    @wraps(original)
    def log_response(message: str, *args: Any, **kwargs: Any) -> None:
        response = kwargs["response"]
        try:
            original(message, *args, **kwargs)
        except Exception as error:
            if not (hasattr(response, "tenant_router_refusal") or _is_of_a_tenant(error)):
                raise
            response._has_been_logged = True
            _log_by_stderr(message, args, error)

    log_response.tenant_router = True  # type: ignore[attr-defined]
    return log_response


def _is_of_a_tenant(error: BaseException | None) -> bool:
    """Whether no tenant is bound, or the bound one's database cannot be reached."""
    while error is not None:
        if isinstance(error, TenantRouterError) or "tenant_database_unreachable" in error.__dict__:
            return True
        error = error.__cause__
    return False


def _log_by_stderr(message: str, args: tuple[Any, ...], error: Exception) -> None:
    """What handlers have not taken is not lost: the handler of last resort writes to standard error."""
    told = f"{message} (a handler of the log failed: %s)"
    record = logger.makeRecord(logger.name, logging.WARNING, __file__, 0, told, (*args, repr(error)), None)
    if logging.lastResort is not None:
        logging.lastResort.handle(record)
