"""Health checks for probes and load balancers, which the middleware answers below ``HEALTH_PREFIX``.

``live``: the process works (a probe that fails restarts it). ``ready``: it can serve tenants, be it
from what it last read: the loss of the config store must not take a whole site out of its load
balancer. ``tenant/<id>``: the databases of one tenant, for those who know ``HEALTH_TOKEN``.
"""

from __future__ import annotations

import hmac
import threading

from django.http import HttpRequest, HttpResponse, JsonResponse

from tenant_router import runtime
from tenant_router.conf import conf
from tenant_router.context_decorators import tenant_context_bind
from tenant_router.exceptions import TenantRouterError, TenantUnresolved
from tenant_router.managers import tenant_context_manager

_UNASKED = "not checked"
_checking = threading.BoundedSemaphore(1)  # a check opens connections: asking often must not open many


def answer(request: HttpRequest, what: str) -> HttpResponse:
    """The answer to ``HEALTH_PREFIX`` + ``what``; 404 for what nobody may know to be there."""
    if what == "live":
        return _live()
    if what == "ready":
        return _ready()
    kind, _, tenant_id = what.partition("/")
    if kind == "tenant" and tenant_id and _is_trusted(request):
        return _tenant(tenant_id.rstrip("/"))
    return HttpResponse("Not found.\n", status=404, content_type="text/plain")


def _live() -> HttpResponse:
    runtime.get().revive()
    return JsonResponse({"status": "live", "state": runtime.get().reflector.state})


def _ready() -> HttpResponse:
    state = runtime.get().reflector.state
    serves = runtime.get().serves
    return JsonResponse({"status": "ready" if serves else "not ready", "state": state}, status=200 if serves else 503)


def _is_trusted(request: HttpRequest) -> bool:
    token = conf.middleware["HEALTH_TOKEN"]
    said = request.META.get("HTTP_AUTHORIZATION", "")
    return bool(token) and hmac.compare_digest(said.encode(), f"Bearer {token.reveal()}".encode())


def _tenant(tenant_id: str) -> HttpResponse:
    if not _checking.acquire(blocking=False):
        return JsonResponse({"error": "another check is running"}, status=429)
    try:
        with tenant_context_bind(tenant_context_manager.get_in_any_state(tenant_id)):
            found = {f"{orm}.{alias}": _said(fault) for orm, alias, fault in runtime.get().check_health()}
    except TenantUnresolved as error:
        return JsonResponse({"error": type(error).__name__}, status=404)
    except TenantRouterError as error:
        return JsonResponse({"error": type(error).__name__}, status=503)
    finally:
        _checking.release()
    return JsonResponse(found, status=200 if set(found.values()) <= {"ok", _UNASKED} else 503)


def _said(fault: Exception | None) -> str:
    """What a database answers; a message may name hosts and users, so it is not shown."""
    if isinstance(fault, NotImplementedError):  # its manager cannot ask
        return _UNASKED
    return type(fault).__name__ if fault else "ok"
