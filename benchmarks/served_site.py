"""A site for the benchmarks that need real servers or fresh processes, configured by its environment.

``BENCH_SYSTEM`` plain or tenant_router; ``BENCH_DATABASES`` JSON, the databases of ``t0.test`` and so on;
``BENCH_REDIS`` the URL of the config store, which holds the tenants already; ``BENCH_SERVICE``.
It is a WSGI module, an ASGI module, and the settings of itself.
"""

from __future__ import annotations

import json
import os
from typing import Any

PLAIN = os.environ["BENCH_SYSTEM"] == "plain"
FILES: list[dict[str, Any]] = json.loads(os.environ["BENCH_DATABASES"])

ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = __name__
SECRET_KEY = "bench"
SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
BENCH_SYSTEM = "plain"  # which package's models the app defines
LOGGING_CONFIG = None
INSTALLED_APPS = [
    *([] if PLAIN else ["tenant_router"]),
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "peer_app",
]
MIDDLEWARE = [
    *([] if PLAIN else ["tenant_router.middleware.TenantContextMiddleware"]),
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
]
if PLAIN:
    DATABASES = {"default": FILES[0], **{f"t{number}": file for number, file in enumerate(FILES) if number}}
else:
    DATABASES = {"default": {**FILES[0], "NAME": "template"}}
    DATABASE_ROUTERS = ["tenant_router.orm_backends.django_orm.router.DjangoOrmRouter"]
    TENANT_ROUTER_SERVICE_NAME = os.environ["BENCH_SERVICE"]
    TENANT_ROUTER_CONFIG_STORE_SETTINGS = {
        "BACKEND": "tenant_router.config_store.backends.redis.RedisStore",
        "LOCATION": {"URL": os.environ["BENCH_REDIS"]},
    }
    TENANT_ROUTER_ORM_SETTINGS = {
        "django_orm": {"SETTINGS_KEY": "DATABASES", "OPTIONS": {"MAX_OPEN_CONNECTIONS": 1_000}}
    }

import celery  # noqa: E402, F401 - a site that uses Redis and Celery, with and without us
import django  # noqa: E402
import redis  # noqa: E402, F401

os.environ.setdefault("DJANGO_SETTINGS_MODULE", __name__)
django.setup()

from django.core.asgi import get_asgi_application  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.http import HttpRequest, JsonResponse  # noqa: E402
from django.urls import path  # noqa: E402
from peer_app.models import Note  # noqa: E402


def _notes(request: HttpRequest) -> Any:
    if not PLAIN:
        return Note.objects
    alias = request.get_host().partition(".")[0]
    return Note.objects.using("default" if alias == "t0" else alias)


def note(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"text": _notes(request).get(pk=1).text})


async def async_note(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"text": (await _notes(request).aget(pk=1)).text})


urlpatterns = [path("", note), path("async/", async_note)]
application = get_asgi_application() if os.environ.get("BENCH_ASGI") else get_wsgi_application()
