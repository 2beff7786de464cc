"""Where a MongoDB database is: the hosts and the URL of its settings taken apart, and one spelling of each. No I/O."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import unquote_plus

from pymongo import uri_parser
from pymongo.errors import PyMongoError

from tenant_router.orm_backends import host_names
from tenant_router.orm_backends.mongo.allowed_options import parsed, plain_name

DEFAULT_PORT = 27017
SCHEMES = {"mongodb": False, "mongodb+srv": True}
_HOST = re.compile(r"(\[[^]]*\]|[^:]*)(?::(.*))?", re.DOTALL)
# Where a server puts its socket: it is the server at that port of this machine.
_SOCKET = re.compile(r"/(?:tmp|run|var/run)(?:/[\w-]+)*/mongodb-([0-9]{1,5})\.sock")


class Node(NamedTuple):
    """One server: a host with a port, the path of a socket, or (``port`` is ``None``) a name that the DNS resolves."""

    host: str
    port: int | None = DEFAULT_PORT

    @property
    def address(self) -> str:
        """As a URL has it."""
        return self.host if self.port is None else f"{self.host}:{self.port}"

    @property
    def place(self) -> str:
        """The same for every spelling of one server."""
        socket = _SOCKET.fullmatch(self.host)
        if socket is not None:
            return f"{host_names.LOCAL}:{int(socket[1])}"
        if self.host.startswith("/"):
            return self.host
        name = host_names.canonical(self.host)
        return f"srv:{name}" if self.port is None else f"{name}:{self.port}"


def is_socket(host: str) -> bool:
    """Whether PyMongo takes ``host`` for the path of a socket, even one without a slash (``uri_parser.parse_host``)."""
    return host.startswith("/") or host.lower().endswith(".sock")


def split(hosts: Any) -> list[Any]:
    """The hosts in ``HOST``: a list, or text with commas."""
    return [host.strip() for host in hosts.split(",")] if isinstance(hosts, str) and hosts else list(hosts or [])


def host_and_port(text: str) -> tuple[str, str | None]:
    """A host and the port that is written behind it, if there is one."""
    found = _HOST.fullmatch(text)
    return (found[1], found[2]) if found is not None else (text, None)


def nodes(fields: Mapping[str, Any]) -> tuple[Node, ...]:
    """The servers of (valid) settings, each once."""
    default = host_names.port_number(fields.get("PORT")) or DEFAULT_PORT
    found = (_node(host, default, bool(fields.get("SRV"))) for host in split(fields.get("HOST") or "localhost"))
    return tuple({node.place: node for node in found}.values())


def _node(text: str, default: int, srv: bool) -> Node:
    if is_socket(text):
        return Node(text, None)
    host, port = host_and_port(text.lower())
    return Node(host, None if srv else int(port) if port else default)


def from_url(url: str) -> dict[str, Any] | None:
    """The settings in a URL, its options among them; ``None`` if it is no MongoDB URL."""
    scheme, _, rest = url.partition("://")
    place, _, path = rest.partition("/")
    name, _, query = path.partition("?")
    try:
        # Never as mongodb+srv://, because parsing that asks the DNS (pymongo/uri_parser.py: parse_uri).
        found = uri_parser.parse_uri(f"mongodb://{place}/", default_port=None, validate=False)
        options = dict(_options(query))
    except (PyMongoError, TypeError, ValueError):
        return None
    hosts, srv = found["nodelist"], SCHEMES[scheme]
    if srv and (len(hosts) != 1 or hosts[0][1] is not None):
        return None
    made: dict[str, Any] = {"NAME": unquote_plus(name), "SRV": srv, "OPTIONS": options}
    made["HOST"], made["PORT"] = _address(hosts, srv)
    if found["username"]:  # else the template's credentials hold
        made |= {"USER": found["username"], "PASS": found["password"]}
    return made


def _options(query: str) -> Iterator[tuple[str, Any]]:
    """Not PyMongo's, which warns of some, and forgets which of two it took. Raises ``ValueError``."""
    tags = list[str]()
    for pair in filter(None, re.split("[&;]", query)):
        name, given, value = pair.partition("=")
        if not given or not name:
            raise ValueError
        if name.lower() == "readpreferencetags":
            tags.append(unquote_plus(value))
        else:
            yield plain_name(name), parsed(name, unquote_plus(value))
    if tags:
        yield "readpreferencetags", tags


def _address(hosts: list[tuple[str, int | None]], srv: bool) -> tuple[list[str], int | None]:
    names = [f"[{host}]" if ":" in host else host for host, _ in hosts]
    ports = [port or DEFAULT_PORT for _, port in hosts]
    if srv or len(hosts) == 1:
        return names, None if srv else ports[0]
    written = zip(names, ports, strict=True)
    return [name if is_socket(name) else f"{name}:{port}" for name, port in written], None
