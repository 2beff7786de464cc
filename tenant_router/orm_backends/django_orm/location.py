"""Where a database is: what tells it from every other one, however its settings are spelt."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any

from tenant_router.orm_backends import host_names
from tenant_router.orm_backends.django_orm import sqlite_names
from tenant_router.orm_backends.django_orm.allowed_options import MYSQL, ORACLE, POSTGRESQL, SQLITE, family
from tenant_router.orm_backends.django_orm.database_url import with_url

Location = tuple[str, ...]

_PORTS = {POSTGRESQL: "5432", MYSQL: "3306", ORACLE: "1521"}
# where servers put their socket if nobody says otherwise: who names no host, or localhost, means these
_SOCKETS = {"/tmp", "/run/postgresql", "/run/mysqld/mysqld.sock", "/tmp/mysql.sock", "/var/lib/mysql/mysql.sock"}
_NAME_BYTES = 63  # PostgreSQL takes no notice of what follows
_EASY_CONNECT = re.compile(r"(?:(?:\w+:)?//)?(?P<host>\[[^]]*\]|[^:/]+)(?::(?P<port>\d+))?/(?P<name>[^:/]*)")


def locations(template: Mapping[str, Any], config: Mapping[str, Any]) -> list[Location]:
    """The databases that a record leads to: one, or one for each host of a list; none for settings that name none."""
    engine = config.get("ENGINE", template.get("ENGINE"))
    given = with_url(config, engine)
    name = given.get("NAME")
    if not isinstance(engine, str) or not isinstance(name, str) or not name:
        return []
    options = {**_mapping(template.get("OPTIONS")), **_mapping(given.get("OPTIONS"))}
    return list(_located(engine, {**template, **given, "OPTIONS": options}))


def of_settings(settings: Mapping[str, Any]) -> list[Location]:
    """As :func:`locations`, of a dictionary in ``DATABASES``."""
    return locations(settings, {"NAME": settings.get("NAME")})


def _located(engine: str, settings: Mapping[str, Any]) -> Iterator[Location]:
    kind = family(engine)
    if kind == SQLITE:
        found = sqlite_names.place(_text(settings["OPTIONS"].get("database") or settings["NAME"]))
        if found is not None:
            yield (kind, found)
        return
    host, port, name = _PLACES.get(kind, _anywhere)(settings)
    ports = _text(port).split(",") if port else []
    for number, each in enumerate(host.split(",")):
        one = ports[min(number, len(ports) - 1)] if ports else _PORTS.get(kind, "")
        yield (kind or engine, canonical_host(each), one.lstrip("0") or _PORTS.get(kind, ""), name)


def _postgresql(settings: Mapping[str, Any]) -> tuple[str, Any, str]:
    """As ``get_connection_params`` of Django's backend merges them, and libpq reads them."""
    options = settings["OPTIONS"]
    host = options.get("hostaddr") or settings.get("HOST") or options.get("host") or options.get("service") or ""
    name = _text(options.get("dbname") or settings["NAME"]).encode(errors="replace")[:_NAME_BYTES]
    return _text(host), settings.get("PORT") or options.get("port"), name.decode(errors="replace")


def _mysql(settings: Mapping[str, Any]) -> tuple[str, Any, str]:
    """As ``get_connection_params`` of Django's backend merges them: ``OPTIONS`` win."""
    options = settings["OPTIONS"]
    host = options.get("unix_socket") or options.get("host") or settings.get("HOST") or ""
    name = options.get("database") or options.get("db") or settings["NAME"]
    return _text(host), None if _text(host).startswith("/") else options.get("port") or settings.get("PORT"), name


def _oracle(settings: Mapping[str, Any]) -> tuple[str, Any, str]:
    """Without a ``PORT`` the name is a connect string (backends/oracle/utils.py)."""
    if not settings.get("PORT"):  # and HOST counts for nothing
        found = _EASY_CONNECT.match(settings["NAME"])
        return (found["host"], found["port"], found["name"].lower()) if found else ("", None, settings["NAME"].lower())
    return _text(settings.get("HOST")), settings.get("PORT"), _text(settings["NAME"]).lower()


def _anywhere(settings: Mapping[str, Any]) -> tuple[str, Any, str]:
    return _text(settings.get("HOST")), settings.get("PORT"), _text(settings["NAME"])


_PLACES: dict[str, Callable[[Mapping[str, Any]], tuple[str, Any, str]]] = {
    POSTGRESQL: _postgresql,
    MYSQL: _mysql,
    ORACLE: _oracle,
}


@lru_cache(maxsize=4096)
def canonical_host(host: str) -> str:
    """One spelling of a host: of names, of addresses, of this machine, of a socket's folder."""
    host = host.strip()
    if host.startswith("/"):
        folder = sqlite_names.real_path(host)
        return host_names.LOCAL if folder in _SOCKETS else folder
    return host_names.canonical(host)


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
