"""The site whose caches ``crowd.py`` measures: ``python crowd_caches.py BACKEND LOCATION``."""

from __future__ import annotations

import os
import statistics
import sys
import time
from io import BytesIO
from typing import Any

FEW, MANY = 8, 4_000
ROUNDS = 8 if os.environ.get("BENCH_QUICK") else 20


def serve_caches(backend: str, location: str) -> None:
    """Ask one view for tenants in turn, each time as many of the few and of the many; prints what a request took."""
    import django
    from django.conf import settings
    from django.http import HttpRequest, HttpResponse
    from django.urls import path

    def view(request: HttpRequest) -> HttpResponse:
        from django.core.cache import cache

        return HttpResponse(str(cache.get_or_set("whose", request.get_host())))

    settings.configure(
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF=type("urls", (), {"urlpatterns": [path("", view)]}),
        INSTALLED_APPS=["tenant_router"],
        MIDDLEWARE=["tenant_router.middleware.TenantContextMiddleware"],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "template"}},
        CACHES={"default": {"BACKEND": backend, "LOCATION": location}},
        TENANT_ROUTER_SERVICE_NAME="bench",
        TENANT_ROUTER_CONFIG_STORE_SETTINGS={"BACKEND": "tenant_router.config_store.backends.memory.MemoryStore"},
        TENANT_ROUTER_ORM_SETTINGS={"django_orm": {"SETTINGS_KEY": "DATABASES"}},
    )
    django.setup()
    from django.core.wsgi import get_wsgi_application
    from tenants import on_databases, register_here

    register_here(on_databases([], MANY))
    application = get_wsgi_application()
    few = turn(application, range(FEW), ROUNDS * 500)  # as the first of this thread: it has opened no others
    turn(application, range(MANY), MANY)
    many_then_few = turn(application, range(FEW), ROUNDS * 500)
    many = turn(application, range(MANY), ROUNDS * 500)
    print(few, many_then_few, many)


def turn(application: Any, numbers: range, requests: int) -> float:
    """Seconds of processor time of one request: the lower quartile of rounds of 100, the others being disturbed."""
    rounds = []
    for start in range(0, requests, 100):
        began = time.process_time()
        for request in range(start, start + 100):
            ask(application, f"t{numbers[request % len(numbers)]}.test")
        rounds.append((time.process_time() - began) / 100)
    return statistics.quantiles(rounds)[0]


def ask(application: Any, host: str) -> None:
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "HTTP_HOST": host, "SERVER_NAME": "", "SERVER_PORT": "80"}
    given = {**environ, "wsgi.url_scheme": "http", "wsgi.input": BytesIO()}
    response = application(given, lambda status, headers: None)
    body = b"".join(response)
    response.close()
    assert body == host.encode(), body


if __name__ == "__main__":
    serve_caches(*sys.argv[1:])
