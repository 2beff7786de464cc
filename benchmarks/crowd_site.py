"""The site that ``crowd.py`` asks on PostgreSQL: ``python crowd_site.py PATTERN SYSTEM HOST DATABASES LIMIT``.

Patterns: ``threads`` (eight threads, each asks for databases at random), ``opened`` (one thread that has all databases
open and asks for the first), ``turns`` (the same, and it asks for all of them) and ``pools`` (each request has a thread
of its own, as under ASGI). Systems: tenant_router, and plain Django with what a project would write for itself:
``plain`` (its connections, which belong to threads, and at most LIMIT of them) and ``lent`` (any thread's, to any).
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from random import Random
from typing import Any

import django
from django.conf import settings
from django.http import HttpRequest, JsonResponse
from django.urls import path
from one_request import MIDDLEWARE, ask

PATTERN, SYSTEM, HOST, DATABASES, LIMIT = *sys.argv[1:4], int(sys.argv[4]), int(sys.argv[5])
OURS, THREADS = SYSTEM == "tenant_router", 8
POOL: dict[str, Any] = {"CONN_MAX_AGE": 0, "OPTIONS": {"pool": {"min_size": 1, "max_size": 4}}}
KEPT = POOL if PATTERN == "pools" else {"CONN_MAX_AGE": 600}
TEMPLATE = {"ENGINE": "django.db.backends.postgresql", "NAME": "template", "HOST": HOST, "USER": "postgres", **KEPT}
ROUTED: dict[str, Any] = {
    "DATABASE_ROUTERS": ["tenant_router.orm_backends.django_orm.router.DjangoOrmRouter"],
    "TENANT_ROUTER_SERVICE_NAME": "bench",
    "TENANT_ROUTER_CONFIG_STORE_SETTINGS": {"BACKEND": "tenant_router.config_store.backends.memory.MemoryStore"},
    "TENANT_ROUTER_ORM_SETTINGS": {
        "django_orm": {"SETTINGS_KEY": "DATABASES", "OPTIONS": {"MAX_OPEN_CONNECTIONS": LIMIT}}
    },
}
settings.configure(
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=[*(["tenant_router"] if OURS else []), "django.contrib.auth", "django.contrib.contenttypes"],
    MIDDLEWARE=[*(["tenant_router.middleware.TenantContextMiddleware"] if OURS else []), *MIDDLEWARE],
    SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
    SECRET_KEY="bench",
    DATABASES={"default": TEMPLATE},
    **(ROUTED if OURS else {}),
)
django.setup()

from django.core.signals import request_finished  # noqa: E402 - settings come first
from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.db import connections, models  # noqa: E402
from django.db.backends.postgresql.base import DatabaseWrapper  # noqa: E402
from django.db.backends.signals import connection_created  # noqa: E402
from variants import answer  # noqa: E402


class Note(models.Model):
    text = models.TextField()

    class Meta:
        app_label = "bench"


class Bound:
    """Written by hand: at most LIMIT connections of this process, of which the least recently used makes room.

    The aliases are not in ``DATABASES``, whose length each request would pay for: a connection is put in the place
    of ``default`` for as long as a request lasts. LIMIT is larger than the number of threads, so nobody waits.
    """

    def __init__(self) -> None:
        self._lock, self._open, self._mine = threading.Lock(), 0, threading.local()
        self._idle: dict[Any, DatabaseWrapper] = {}  # least recently used first
        request_finished.connect(self.give_back)  # behind Django's own receiver, which looks at what is used

    def borrow(self, number: int) -> None:
        """Make ``default`` the database of this number."""
        key = number if SYSTEM == "lent" else (number, threading.get_ident())
        victim = None
        with self._lock:
            found = self._idle.pop(key, None)
            if found is None and self._open >= LIMIT:
                victim = self._idle.pop(next(iter(self._idle)))
            elif found is None:
                self._open += 1
        if victim is not None:
            victim.close()
        connections["default"] = found or by_hand(number)
        self._mine.key = key

    def give_back(self, **kwargs: Any) -> None:
        wrapper, key = connections["default"], self._mine.key
        del connections["default"]
        with self._lock:
            if key not in self._idle:
                self._idle[key] = wrapper
                return
            self._open -= 1
        wrapper.close()  # two threads had the same database, and one of its connections is enough


def by_hand(number: int) -> DatabaseWrapper:
    """Plain Django's connection to a database; its pool is in Django's dictionary of pools, by this alias."""
    wrapper = DatabaseWrapper({**connections.settings["default"], "NAME": f"crowd_{number}"}, f"t{number}")
    wrapper.inc_thread_sharing()  # whoever needs room closes it
    return wrapper


bound = None if OURS or PATTERN == "pools" else Bound()


def note(request: HttpRequest) -> JsonResponse:
    if bound is not None:
        bound.borrow(_number(request))
    elif not OURS:
        connections["default"] = by_hand(_number(request))
    return JsonResponse({"text": Note.objects.get(pk=1).text})


def _number(request: HttpRequest) -> int:
    return int(request.get_host()[1:].partition(".")[0])


urlpatterns = [path("", note)]


class Threads:
    """The threads of a server, which live for as long as it does; each asks for databases at random."""

    def __init__(self, application: Any) -> None:
        self._gate, self._share = threading.Barrier(THREADS + 1), 0
        for seed in range(THREADS):
            threading.Thread(target=self._live, args=[application, Random(seed)], daemon=True).start()

    def ask(self, requests: int) -> None:
        """Have them ask, and wait until they are done."""
        self._share = requests // THREADS
        self._gate.wait()
        self._gate.wait()

    def _live(self, application: Any, random: Random) -> None:
        try:
            while True:
                self._gate.wait()
                for _ in range(self._share):
                    ask(application, random.randrange(DATABASES))
                self._gate.wait()
        except BaseException:
            self._gate.abort()
            raise


def ask_in_new_threads(application: Any, requests: int) -> None:
    """Each request in a thread of its own, one after the other."""
    answered: list[int] = []
    for request in range(requests):
        thread = threading.Thread(target=_ask_once, args=[application, request % DATABASES, answered])
        thread.start()
        thread.join()
    assert len(answered) == requests


def _ask_once(application: Any, number: int, answered: list[int]) -> None:
    ask(application, number)
    answered.append(number)


def measure(ask_for: Callable[[int], None], opened: list[None]) -> None:
    """The site's side of ``crowd.Site``: a number of requests per line, and what they took."""
    for line in sys.stdin:
        before, processor, began = len(opened), time.process_time(), time.perf_counter()
        ask_for(int(line))
        found = {"seconds": time.perf_counter() - began, "processor": time.process_time() - processor}
        print(json.dumps({**found, "opened": len(opened) - before, "threads": threading.active_count()}), flush=True)


def main() -> None:
    if OURS:
        from tenants import on_databases, register_here

        register_here(on_databases([f"crowd_{number}" for number in range(DATABASES)]))
    application, opened = get_wsgi_application(), list[None]()
    connection_created.connect(lambda **kwargs: opened.append(None), weak=False)
    if PATTERN == "threads":
        measure(Threads(application).ask, opened)
    elif PATTERN == "pools":
        measure(lambda requests: ask_in_new_threads(application, requests), opened)
    else:
        for number in range(DATABASES):
            ask(application, number)
        asked_for = DATABASES if PATTERN == "turns" else 1
        answer(lambda number: ask(application, number % asked_for), lambda: len(opened))


if __name__ == "__main__":
    main()
