"""The nodes that ``HOSTS`` name: taken apart, what is wrong with them, and one spelling of each. No I/O."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import quote, unquote

from tenant_router import allow_lists
from tenant_router.orm_backends import host_names
from tenant_router.secrets import SecretText

PORT = 9200
_URL = re.compile(
    r"(?P<scheme>https?)://(?:(?P<user>[^@/?#]*)@)?(?P<host>\[[^]]*\]|[^:/@?#]+)(?::(?P<port>[^/?#]*))?(?P<path>/[^?#]*)?",
    re.IGNORECASE,
)
_KEYS = ("host", "port", "scheme", "path_prefix")
_PATH = re.compile(r"[\w.~%/-]*", re.ASCII)
_MOST = 1_000  # characters


class Node(NamedTuple):
    """One node. ``user``: user and password, as the URL had them."""

    scheme: str
    host: str
    port: int
    path: str = ""
    user: str = ""

    @property
    def url(self) -> str:
        """As the client takes it."""
        if not self.user:
            return f"{self.scheme}://{self.host}:{self.port}{self.path}"
        return SecretText(f"{self.scheme}://{self.user}@{self.host}:{self.port}{self.path}")

    @property
    def place(self) -> str:
        """The same for every spelling of one node."""
        return f"{host_names.canonical(self.host)}:{self.port}{unquote(self.path).lower()}"

    @property
    def trusted_as(self) -> tuple[str, str]:
        """The same for what may have the same credentials."""
        return self.scheme, self.place


def node(host: Any) -> Node:
    """A (valid) item of ``HOSTS``."""
    if isinstance(host, str):
        found = _URL.fullmatch(host)
        assert found is not None
        scheme, default = found["scheme"].lower(), 443 if found["scheme"].lower() == "https" else PORT
        port = int(found["port"]) if found["port"] else default
        return Node(scheme, host_names.in_ascii(found["host"]), port, _path(found["path"]), found["user"] or "")
    name = f"[{host['host']}]" if ":" in host["host"] else host_names.in_ascii(host["host"])
    port = host_names.port_number(host.get("port", PORT)) or PORT
    return Node(host.get("scheme", "http"), name, port, _path(quote(host.get("path_prefix", ""), safe="/%~")))


def nodes(hosts: Any) -> tuple[Node, ...]:
    """Those of (valid) ``HOSTS``, each once."""
    return tuple({each.trusted_as: each for each in map(node, hosts)}.values())


def faults(hosts: Any) -> Iterator[tuple[str, str]]:
    """What is wrong with ``HOSTS``, by key and without values."""
    if not isinstance(hosts, list | tuple) or not hosts:
        yield "HOSTS", "is missing, or no list of URLs or of objects with 'host' and 'port'"
        return
    for place, host in enumerate(hosts):
        yield from ((f"HOSTS[{place}]{key}", what) for key, what in _faults(host))


def _faults(host: Any) -> Iterator[tuple[str, str]]:
    if isinstance(host, str):
        yield from (("", what) for what in _url_faults(host))
    elif not isinstance(host, Mapping):
        yield "", "is neither a URL nor an object with 'host' and 'port'"
    else:
        yield from _object_faults(host)


def _object_faults(host: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield from ((f".{allow_lists.shown(key)}", "is no key of a host") for key in host if key not in _KEYS)
    name = host.get("host")
    if not isinstance(name, str) or not name:
        yield ".host", "is missing, or no text"
    elif not host_names.is_host(f"[{name}]" if ":" in name else name):
        yield ".host", "is no host name"
    if host_names.port_number(host.get("port", PORT)) is None:
        yield ".port", "is no port number"
    if host.get("scheme", "http") not in ("http", "https"):
        yield ".scheme", "is neither 'http' nor 'https'"
    path = host.get("path_prefix", "")
    if not isinstance(path, str) or not _is_path(path):
        yield ".path_prefix", "is no path"


def _url_faults(url: str) -> Iterator[str]:
    found = _URL.fullmatch(url) if len(url) <= _MOST and not allow_lists.control(f" {url}") else None
    if not url.lower().startswith(("http://", "https://")):
        yield "begins with neither 'http://' nor 'https://'"
    elif found is None:
        yield "is no URL of a node: http://user:password@host:port/path, without a query or a fragment"
    elif not host_names.is_host(found["host"]):
        yield "names no host"
    elif found["port"] and host_names.port_number(found["port"]) is None:
        yield "has a port that is none"
    elif not _is_path(found["path"] or ""):
        yield "has a path that is none"


def _is_path(path: str) -> bool:
    """``.`` and ``..`` would be another spelling of a path, and what is left out of one as well."""
    if len(path) > _MOST or _PATH.fullmatch(path) is None:
        return False
    plain = unquote(path, errors="replace").strip("/")
    parts = plain.split("/") if plain else []
    return all(part.strip(".") for part in parts) and plain.isprintable()


def _path(path: str | None) -> str:
    inner = (path or "").strip("/")
    return f"/{inner}" if inner else ""
