"""Merges a template with a tenant's record: the address of a MongoDB database. No I/O."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import quote

from tenant_router.exceptions import RecordInvalid
from tenant_router.orm_backends.mongo.validation import Fault, faults, from_url, split

# In milliseconds: PyMongo waits 30 s for a server, and for ever for an answer.
_TIMEOUTS = {
    "serverselectiontimeoutms": 3_000,
    "connecttimeoutms": 3_000,
    "sockettimeoutms": 30_000,
    "waitqueuetimeoutms": 5_000,
}
# With these mechanisms credentials belong to no database (pymongo/auth.py: _build_credentials_tuple).
_EXTERNAL = ("MONGODB-X509", "GSSAPI", "MONGODB-AWS")


class Target(NamedTuple):
    """One database: its ``name``, its cluster's ``hosts``, and the ``arguments`` of a client that reaches it."""

    name: str
    hosts: tuple[str, ...]
    arguments: Mapping[str, Any]

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} on {', '.join(self.hosts)}>"

    @property
    def cluster_key(self) -> tuple[Any, ...]:
        """Equal for databases that one client reaches: cluster, credentials and options are the same."""
        return tuple(sorted((name, _hashable(value)) for name, value in self.arguments.items()))


def build(template: Mapping[str, Any], config: Mapping[str, Any]) -> Target:
    """Merge a tenant's ``config`` into its ``template``; ``OPTIONS`` merge one level deep.

    Raises ``RecordInvalid`` with every fault, by key and without values.
    """
    problems = [*faults(config), *_missing(config)]
    if not problems:
        merged = _merged(template, config)
        problems = list(_credential_faults(merged))
    if problems:
        raise RecordInvalid(problems)
    hosts = _hosts(merged)
    scheme = "mongodb+srv" if merged.get("SRV") else "mongodb"
    url = f"{scheme}://{','.join(quote(host, safe=':[]') for host in hosts)}/"
    return Target(merged["NAME"], hosts, {"host": url, **_options(merged)})


def location(template: Mapping[str, Any], config: Mapping[str, Any]) -> tuple[str, ...] | None:
    """What tells a database from every other one; ``None`` for settings that are refused."""
    if any(faults(config)) or any(_missing(config)):
        return None
    merged = _merged(template, config)
    # Names that differ in case only cannot be on one server together.
    return (*sorted(host.lower() for host in _hosts(merged)), merged["NAME"].lower())


def _missing(config: Mapping[str, Any]) -> Iterator[Fault]:
    if not config.get("NAME") and "CONN_URL" not in config:
        yield "NAME", "is missing: each tenant has a database of its own (NAME, or CONN_URL)"


def _credential_faults(merged: Mapping[str, Any]) -> Iterator[Fault]:
    if merged.get("PASS") and not merged.get("USER"):
        yield "PASS", "is given without USER"
    elif merged.get("USER") and not merged.get("PASS") and not _is_external(merged):
        yield "USER", "is given without PASS"


def _merged(template: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    below, above = _fields(template), _fields(config)
    options = {**_TIMEOUTS, **below.pop("OPTIONS", {}), **above.pop("OPTIONS", {})}
    return {**below, **above, "OPTIONS": options}


def _fields(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with ``CONN_URL`` taken apart and option names in lower case, as PyMongo compares them."""
    parsed = from_url(settings["CONN_URL"]) if settings.get("CONN_URL") else None
    found = {**(parsed or {}), **{key: value for key, value in settings.items() if key not in ("CONN_URL", "OPTIONS")}}
    if "HOST" in settings:
        found["SRV"] = False
    options = {**(parsed or {}).get("OPTIONS", {}), **settings.get("OPTIONS", {})}
    return {**found, "OPTIONS": {name.lower(): value for name, value in options.items()}}


def _hosts(merged: Mapping[str, Any]) -> tuple[str, ...]:
    hosts, port = split(merged.get("HOST") or "localhost"), merged.get("PORT") or 27017
    if merged.get("SRV"):
        return tuple(hosts)
    return tuple(host if host.startswith("/") or re.search(r":\d+$", host) else f"{host}:{port}" for host in hosts)


def _options(merged: Mapping[str, Any]) -> dict[str, Any]:
    options = dict(merged["OPTIONS"])
    if not merged.get("USER"):
        return options
    if not _is_external(merged):
        # As connection URLs have it: credentials belong to the database, unless authSource says otherwise.
        options.setdefault("authsource", merged["NAME"])
    return {**options, "username": merged["USER"], "password": merged.get("PASS")}


def _is_external(merged: Mapping[str, Any]) -> bool:
    return str(merged["OPTIONS"].get("authmechanism", "")).upper() in _EXTERNAL


def _hashable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return tuple(sorted((str(key), _hashable(item)) for key, item in value.items()))
    if isinstance(value, list | tuple):
        return tuple(_hashable(item) for item in value)
    return value if isinstance(value, str | int | float | type(None)) else id(value)
