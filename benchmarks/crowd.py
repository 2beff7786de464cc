"""A crowd of tenants that one thread serves, against eight: what a request pays for those that it does not serve.

python benchmarks/crowd.py
"""

from __future__ import annotations

import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import report

FEW, MANY = 8, 4_000
ROUNDS = 8 if os.environ.get("BENCH_QUICK") else 20
DJANGO = "django.core.cache.backends"


# --- the measured site: python crowd.py caches CACHES-ENTRY... ---


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


# --- the harness ---


def caches() -> None:
    """Each backend at the template's location: 4,000 tenants of one thread against eight."""
    with ExitStack() as stack:
        places = {"locmem": (f"{DJANGO}.locmem.LocMemCache", "crowd")}
        if shutil.which("memcached"):
            places["Memcached"] = (f"{DJANGO}.memcached.PyMemcacheCache", stack.enter_context(memcached()))
        for name, (backend, location) in places.items():
            command = [sys.executable, __file__, "caches", backend, location]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            few, after, many = map(float, done.stdout.split())
            report.row("caches", f"{name}: eight after {MANY} were served, against before", after / few, goal="<= 1.1")
            report.row("caches", f"{name}: {MANY} in turn, against eight", many / few, goal="<= 1.25")
            report.row("caches", f"{name}: a request of {MANY} in turn", many * 1000, "ms")


@contextmanager
def memcached() -> Iterator[str]:
    """A server on a socket of its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "socket")
        process = subprocess.Popen([shutil.which("memcached") or "", "-s", path, "-u", "root"])
        try:
            deadline = time.monotonic() + 30
            while not _listens(path):
                assert time.monotonic() < deadline, "memcached does not listen"
                time.sleep(0.01)
            yield f"unix:{path}"
        finally:
            process.terminate()
            process.wait(30)


def _listens(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(path) == 0


def main() -> None:
    if sys.argv[1:2] == ["caches"]:
        serve_caches(*sys.argv[2:])
    else:
        caches()


if __name__ == "__main__":
    main()
