"""What is wrong with what a tenant's record says of one database."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from tenant_router import allow_lists
from tenant_router.orm_backends.django_orm import database_url, sqlite_names
from tenant_router.orm_backends.django_orm.allowed_options import (
    MYSQL,
    ORACLE,
    POSTGRESQL,
    SETTINGS,
    SQLITE,
    TEST,
    family,
    options_of,
)

Fault = tuple[str, str]

_PORTS = range(65_536)
_NAME_BYTES = {POSTGRESQL: 63, MYSQL: 64}
_HOST = re.compile(r"\w(?:[\w.-]*[\w.])?|\[?[0-9A-Fa-f:.]+(?:%\w+)?\]?")
_ORACLE_NAME = re.compile(r"[\w.$#:/,\[\]-]+")  # an address or a service, not a descriptor, which may name a program


class _Port:
    """A number, or one as text."""

    def fault(self, value: Any) -> str | None:
        """See ``allow_lists.Kind``."""
        if isinstance(value, bool) or not isinstance(value, int | str):
            return f"is a {type(value).__name__}; give a number"
        text = str(value)
        good = not text or (text.isascii() and text.isdigit() and len(text) < 6 and int(text) in _PORTS)
        return None if good else "is no number of a port"

    def parse(self, text: str) -> Any:
        """See ``allow_lists.Kind``."""
        return text


_ALLOWED = {**SETTINGS, "PORT": _Port(), "OPTIONS": allow_lists.ANYTHING, "TEST": allow_lists.ANYTHING}


def faults(
    template: Mapping[str, Any], config: Mapping[str, Any], engines: Collection[str], widen: Collection[str]
) -> Iterator[Fault]:
    """Every fault of ``config``, as ``(key, what is wrong)``, without values.

    ``engines``: ``ALLOW_ENGINES``. ``widen``: ``ALLOW_OPTIONS``, keys of ``OPTIONS``, or of a template that
    is a third-party backend's.
    """
    yield from allow_lists.faults(config, _ALLOWED, [key for key in widen if key in template])
    engine = config.get("ENGINE", template.get("ENGINE", ""))
    if "OPTIONS" in config:
        yield from _nested("OPTIONS", config["OPTIONS"], options_of(engine), widen)
        yield from _pool_faults(template, config)
    if "TEST" in config:
        yield from _nested("TEST", config["TEST"], TEST, ())
    yield from _name_faults(config, engine)
    if "ENGINE" in config or "URL" in config:
        yield from _engine_faults(template, config, engines)
    if isinstance(config.get("URL"), str):
        yield from _url_faults(config["URL"], engine, widen)
    yield from _place_faults(config, engine)


def _nested(key: str, value: Any, allowed: allow_lists.AllowList, widen: Collection[str]) -> Iterator[Fault]:
    if isinstance(value, Mapping):
        for name, what in allow_lists.faults(value, allowed, widen):
            yield f"{key}.{name}", what
    else:
        yield key, f"is a {type(value).__name__}; give a dictionary"


def _name_faults(config: Mapping[str, Any], engine: object) -> Iterator[Fault]:
    if "URL" in config:
        if "NAME" in config:
            yield "URL", "and NAME cannot both be given"
        elif isinstance(config["URL"], str) and not database_url.parse(config["URL"], engine).get("NAME"):
            yield "URL", "names no database: it ends in /<database name>"
    elif not config.get("NAME"):
        yield "NAME", "is missing: each tenant has a database of its own (NAME, or URL)"
    if "PASS" in config and "PASSWORD" in config:
        yield "PASS", "and PASSWORD are the same setting: give one"


def _engine_faults(template: Mapping[str, Any], config: Mapping[str, Any], engines: Collection[str]) -> Iterator[Fault]:
    own = template.get("ENGINE", "")
    engine = config.get("ENGINE", own)
    if isinstance(engine, str) and engine != own and engine not in engines:
        yield "ENGINE", f"differs from the template's {own!r}; OPTIONS['ALLOW_ENGINES'] of the ORM can allow it"
    url = config.get("URL")
    if isinstance(url, str) and isinstance(engine, str):
        scheme = url.split(":", 1)[0].lower()
        if engine.rsplit(".", 1)[-1] not in database_url.SCHEMES.get(scheme, ()):
            named = f"the scheme {scheme!r}, which" if scheme in database_url.SCHEMES else "a scheme that"
            yield "URL", f"has {named} does not belong to {engine!r}"


def _url_faults(url: str, engine: object, widen: Collection[str]) -> Iterator[Fault]:
    """The same lists for what a URL says: it is one more spelling."""
    found = database_url.parse(url, engine)
    if found and (what := allow_lists.ambiguity(url)):
        yield "URL", what
    for name, what in allow_lists.faults(found.pop("OPTIONS", {}), options_of(engine), widen):
        yield "URL", f"has {allow_lists.parameter(name, url)}, which {what}"
    for _, what in allow_lists.faults(found, _ALLOWED):
        yield "URL", f"has a part which {what}"
    for _, what in _place_faults(found, engine):
        yield "URL", f"has a part which {what}"


def _place_faults(config: Mapping[str, Any], engine: object) -> Iterator[Fault]:
    kind, name, host, user = family(engine), config.get("NAME"), config.get("HOST"), config.get("USER")
    if isinstance(name, str) and name:
        for what in sqlite_names.faults(name) if kind == SQLITE else _database_name_faults(name, kind):
            yield "NAME", what
    if isinstance(host, str) and kind != SQLITE and not all(map(_is_host, host.split(","))):
        yield "HOST", "is neither a host name, nor an address, nor a socket folder, nor a list of them"
    # dbshell passes it to a program
    if isinstance(user, str) and (user.startswith("-") or (kind == ORACLE and re.search("[@/]", user))):
        yield "USER", "is no name of a user"


def _database_name_faults(name: str, kind: str) -> Iterator[str]:
    if name.startswith("-"):
        yield "begins with '-', which programs take for an option (dbshell passes it to one)"
    # psql, which dbshell starts, reads both as a whole connection: another server, a service, a file
    if kind == POSTGRESQL and ("=" in name or "://" in name):
        yield "holds '=' or '://', which psql takes for a connection string"
    most = _NAME_BYTES.get(kind, allow_lists.LONGEST)
    if len(name.encode(errors="replace")) > most:
        yield f"is longer than the {most} bytes of which the server takes notice"
    if kind == ORACLE and _ORACLE_NAME.fullmatch(name) is None:
        yield "is neither a service nor an address"


def _is_host(host: str) -> bool:
    return not host or host.startswith(("/", "@")) or _HOST.fullmatch(host) is not None


def _pool_faults(template: Mapping[str, Any], config: Mapping[str, Any]) -> Iterator[Fault]:
    options = config.get("OPTIONS")
    pool = options.get("pool") if isinstance(options, Mapping) else None
    if not isinstance(pool, Mapping) or family(config.get("ENGINE", template.get("ENGINE"))) != POSTGRESQL:
        return
    least, most = pool.get("min_size", 4), pool.get("max_size")  # 4: psycopg_pool's default
    if isinstance(least, int) and isinstance(most, int) and most < least:
        yield "OPTIONS.pool", f"has a max_size below its min_size, which is {least}"
