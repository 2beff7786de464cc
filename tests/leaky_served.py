"""The corpus of leaky code where it would run: in a view of a web server and in a task of a worker."""

from celery import shared_task
from django.core.cache import caches
from django.core.signing import BadSignature
from django.http import JsonResponse
from django.urls import path

from tenant_router.context_decorators import tenant_context_bind
from tenant_router.exceptions import TenantContextMissing, TenantMismatch
from tests.app.urls import urlpatterns as of_the_application
from tests.leaky import CORPUS

CLEAR = (TenantMismatch, TenantContextMissing, BadSignature)


def run(name):
    """What the snippet returns, or ``refused`` when it meets one of our errors."""
    _, snippet = CORPUS[name]
    _forget()
    try:
        return snippet(lambda: tenant_context_bind("a.test"), lambda: tenant_context_bind("b.test"))
    except CLEAR:
        return "refused"


def _forget():
    """Empty the caches, which the snippets share."""
    caches["central"].clear()
    for tenant_id in ("a.test", "b.test"):
        with tenant_context_bind(tenant_id):
            caches["default"].clear()


def leak(request, name):
    return JsonResponse({"found": run(name)})


@shared_task
def leak_in_a_task(name):
    return run(name)


urlpatterns = [path("leak/<str:name>/", leak), *of_the_application]
