"""Merges a template with a tenant's record: the address of a MongoDB database. No I/O."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import quote

from tenant_router.exceptions import RecordInvalid
from tenant_router.orm_backends import host_names
from tenant_router.orm_backends.mongo.address import from_url, nodes
from tenant_router.orm_backends.mongo.allowed_options import parsed, plain_name
from tenant_router.orm_backends.mongo.validation import Fault, address_faults, record_faults, together
from tenant_router.secrets import SecretText

# In milliseconds: PyMongo waits 30 s for a server, and for ever for an answer.
_TIMEOUTS = {
    "serverselectiontimeoutms": 3_000,
    "connecttimeoutms": 3_000,
    "sockettimeoutms": 30_000,
    "waitqueuetimeoutms": 5_000,
}
# With these mechanisms credentials belong to no database (pymongo/auth.py: _build_credentials_tuple).
_EXTERNAL = ("MONGODB-X509", "GSSAPI", "MONGODB-AWS")
# What goes to the hosts for which it was written, and to no others.
_CREDENTIALS = ("USER", "PASS")
_CREDENTIAL_OPTIONS = frozenset(
    {
        *("authsource", "authmechanism", "authmechanismproperties", "username", "password"),
        *("tlscertificatekeyfile", "tlscertificatekeyfilepassword", "ssl_certfile", "ssl_keyfile"),
        "ssl_pem_passphrase",
    }
)


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


def build(template: Mapping[str, Any], config: Mapping[str, Any], widen: Collection[str] = ()) -> Target:
    """Merge a tenant's ``config`` into its ``template``; ``OPTIONS`` merge one level deep.

    A record that leads to other hosts has none of the template's credentials. ``widen``: options that a
    record may have besides the allow-listed. Raises ``RecordInvalid`` with every fault, by key and without values.
    """
    problems = [*record_faults(template, config, widen), *_missing(config)]
    if problems:
        raise RecordInvalid(problems)
    below, above = _fields(template), _fields(config)
    problems = list(_tls_faults(below, above))
    merged = _merged(below, above)
    problems += _credential_faults(merged)
    target = _target(merged)
    if not problems:
        problems += together(target.arguments, target.hosts, bool(merged.get("SRV")))
    if problems:
        raise RecordInvalid(problems)
    return target


def central(settings: Mapping[str, Any]) -> Target:
    """The database of a reserved alias, whose settings are complete and are the project's own."""
    return _target(_merged(_fields({}), _fields(settings)))


def places(template: Mapping[str, Any], config: Mapping[str, Any]) -> tuple[set[str], str]:
    """The servers to which a record leads, and what its database is called there; none for one without an address."""
    if any(address_faults(config)):
        return set(), ""
    merged = {**_fields({**template, "OPTIONS": {}}), **_fields({**config, "OPTIONS": {}})}
    # Names that differ in case only cannot be on one server together.
    return {node.place for node in nodes(merged)}, (merged.get("NAME") or "").lower()


def locations(
    template: Mapping[str, Any], config: Mapping[str, Any], clusters: Iterable[frozenset[str]] = ()
) -> list[tuple[str, ...]]:
    """What tells a database from every other one, for each of its cluster's hosts; none for settings without one.

    Two lists of hosts that have one in common are one cluster; ``clusters`` are those that are known.
    """
    hosts, name = places(template, config)
    return [] if any(_missing(config)) else [(host, name) for host in host_names.all_hosts(hosts, clusters)]


def _missing(config: Mapping[str, Any]) -> Iterator[Fault]:
    if not config.get("NAME") and "CONN_URL" not in config:
        yield "NAME", "is missing: each tenant has a database of its own (NAME, or CONN_URL)"


def _credential_faults(merged: Mapping[str, Any]) -> Iterator[Fault]:
    if merged.get("PASS") and not merged.get("USER"):
        yield "PASS", "is given without USER"
    elif merged.get("USER") and not merged.get("PASS") and not _is_external(merged):
        yield "USER", "is given without PASS"


def _tls_faults(below: Mapping[str, Any], above: Mapping[str, Any]) -> Iterator[Fault]:
    if above["OPTIONS"].get("tls") is False and _has_tls(below) and not _leads_elsewhere(below, above):
        yield "OPTIONS.tls", "cannot be off: the hosts are the template's, which has it on"


def _has_tls(fields: Mapping[str, Any]) -> bool:
    on = any(
        name.startswith(("tls", "ssl")) and value not in (False, None) for name, value in fields["OPTIONS"].items()
    )
    return bool(fields.get("SRV")) or on


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """``below`` is the template's: its credentials go with its hosts."""
    if _leads_elsewhere(below, above):
        below = {key: value for key, value in below.items() if key not in _CREDENTIALS}
        kept = {name: value for name, value in below["OPTIONS"].items() if name not in _CREDENTIAL_OPTIONS}
        below["OPTIONS"] = _without_tls(kept) if above["OPTIONS"].get("tls") is False else kept
    options = {**_TIMEOUTS, **below["OPTIONS"], **above["OPTIONS"]}
    merged = {**below, **above, "OPTIONS": options}
    if merged.get("USER") and not _is_external(merged):
        # As connection URLs have it: credentials belong to the database with which they are given.
        own = above.get("USER") and any(above.get(key) != below.get(key) for key in _CREDENTIALS)
        options.setdefault("authsource", (above if own else below).get("NAME") or "admin")
    return merged


def _leads_elsewhere(below: Mapping[str, Any], above: Mapping[str, Any]) -> bool:
    """Whether any server of a record is none of its template's."""
    if "HOST" not in above and "PORT" not in above:
        return False
    return not {node.place for node in nodes({**below, **above})} <= {node.place for node in nodes(below)}


def _without_tls(options: Mapping[str, Any]) -> dict[str, Any]:
    """PyMongo refuses them where TLS is off (``client_options._parse_ssl_options``)."""
    return {name: value for name, value in options.items() if not name.startswith(("tls", "ssl"))}


def _fields(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with ``CONN_URL`` taken apart and option names in one spelling, as PyMongo compares them."""
    parts = (from_url(settings["CONN_URL"]) if settings.get("CONN_URL") else None) or {}
    found = {**parts, **{key: value for key, value in settings.items() if key not in ("CONN_URL", "OPTIONS")}}
    if "HOST" in settings:
        found["SRV"] = False
    options = {plain_name(name): _typed(name, value) for name, value in settings.get("OPTIONS", {}).items()}
    return {**found, "OPTIONS": {**parts.get("OPTIONS", {}), **options}}


def _typed(name: str, value: Any) -> Any:
    """What PyMongo takes as text, such as ``"true"``, is the same as what it stands for: one client has both."""
    return parsed(name, value) if isinstance(value, str) else value


def _target(merged: Mapping[str, Any]) -> Target:
    found = nodes(merged)
    hosts = tuple(node.address for node in found)
    scheme = "mongodb+srv" if merged.get("SRV") else "mongodb"
    url = f"{scheme}://{','.join(quote(host, safe=':[]') for host in sorted(hosts))}/"
    return Target(merged["NAME"], hosts, {"host": url, **_options(merged)})


def _options(merged: Mapping[str, Any]) -> dict[str, Any]:
    if not merged.get("USER"):
        return dict(merged["OPTIONS"])
    password = merged.get("PASS")
    hidden = SecretText(password) if password else None
    return {**merged["OPTIONS"], "username": merged["USER"], "password": hidden}


def _is_external(merged: Mapping[str, Any]) -> bool:
    return str(merged["OPTIONS"].get("authmechanism", "")).upper() in _EXTERNAL


def _hashable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return tuple(sorted((str(key), _hashable(item)) for key, item in value.items()))
    if isinstance(value, list | tuple):
        return tuple(_hashable(item) for item in value)
    return value if isinstance(value, str | int | float | type(None)) else id(value)
