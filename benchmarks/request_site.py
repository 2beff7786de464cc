"""The site that ``request.py`` measures: ``python request_site.py plain|REGISTERED VISITED FOLDER``."""

from __future__ import annotations

import sqlite3
import sys
from pathlib import Path
from typing import Any

import django
from django.conf import settings
from django.http import HttpRequest, JsonResponse
from django.urls import path
from one_request import MIDDLEWARE, ask

NAME, FOLDER = sys.argv[1], Path(sys.argv[3])
PLAIN, SERVED = NAME == "plain", int(sys.argv[2])


def _database(number: int) -> dict[str, Any]:
    file = FOLDER / f"{NAME}-{SERVED}-{number}.sqlite3"
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE bench_note (id integer PRIMARY KEY, text text)")
        connection.execute("INSERT INTO bench_note VALUES (1, ?)", (f"of {number}",))
    connection.close()
    return {"ENGINE": "django.db.backends.sqlite3", "NAME": str(file), "CONN_MAX_AGE": None}


FILES = [_database(number) for number in range(SERVED)]
OURS: dict[str, Any] = {
    "DATABASE_ROUTERS": ["tenant_router.orm_backends.django_orm.router.DjangoOrmRouter"],
    "TENANT_ROUTER_SERVICE_NAME": "bench",
    "TENANT_ROUTER_CONFIG_STORE_SETTINGS": {"BACKEND": "tenant_router.config_store.backends.memory.MemoryStore"},
    "TENANT_ROUTER_ORM_SETTINGS": {"django_orm": {"SETTINGS_KEY": "DATABASES"}},
}
settings.configure(
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=[*([] if PLAIN else ["tenant_router"]), "django.contrib.auth", "django.contrib.contenttypes"],
    MIDDLEWARE=[
        *([] if PLAIN else ["tenant_router.middleware.TenantContextMiddleware"]),
        *MIDDLEWARE,
    ],
    SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
    SECRET_KEY="bench",
    DATABASES=(
        {"default": FILES[0], **{f"t{number}": file for number, file in enumerate(FILES) if number}}
        if PLAIN
        else {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "template", "CONN_MAX_AGE": None}}
    ),
    **({} if PLAIN else OURS),
)
django.setup()

from django.core.wsgi import get_wsgi_application  # noqa: E402 - settings come first
from django.db import connections, models  # noqa: E402
from django.db.backends.signals import connection_created  # noqa: E402
from variants import answer  # noqa: E402


class Note(models.Model):
    text = models.TextField()

    class Meta:
        app_label = "bench"


def note(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"text": _notes(request).get(pk=1).text})


def _notes(request: HttpRequest) -> Any:
    """Plain Django with several databases needs the alias in the view; with one it needs nothing, and so do we."""
    if not PLAIN or SERVED == 1:
        return Note.objects
    alias = request.get_host().partition(".")[0]
    return Note.objects.using("default" if alias == "t0" else alias)


urlpatterns = [path("", note)]


def main() -> None:
    if not PLAIN:
        from tenants import on_databases, register_here

        register_here(on_databases([file["NAME"] for file in FILES], int(NAME)))
    application, executed = get_wsgi_application(), [0]

    def request(number: int) -> None:
        ask(application, number % SERVED)

    def counting(execute: Any, *arguments: Any) -> Any:
        executed[0] += 1
        return execute(*arguments)

    def count_on(connection: Any, **kwargs: Any) -> None:
        if counting not in connection.execute_wrappers:
            connection.execute_wrappers.append(counting)

    connection_created.connect(count_on)
    for connection in connections.all(initialized_only=True):
        count_on(connection)

    def statements() -> int:
        return executed[0]

    answer(request, statements)


if __name__ == "__main__":
    main()
