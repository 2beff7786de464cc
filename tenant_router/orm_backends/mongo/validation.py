"""Validates the settings of a MongoDB database: each fault by its key, never with a value."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from pymongo import common, uri_parser
from pymongo.errors import PyMongoError

from tenant_router import allow_lists

_OPTIONAL_TEXT = (str, type(None))
_TYPES: dict[str, tuple[type, ...]] = {
    "NAME": (str,),
    "CONN_URL": (str,),
    "USER": _OPTIONAL_TEXT,
    "PASS": _OPTIONAL_TEXT,
    "HOST": (str, list, tuple, type(None)),
    "PORT": (int, str, type(None)),
    "OPTIONS": (Mapping,),
}
_ADDRESS = ("NAME", "USER", "PASS", "HOST", "PORT")
_SCHEMES = {"mongodb": False, "mongodb+srv": True}
_OWN = ("connect", "username", "password", "host", "port")  # what else says, or what lazy clients rely on
_HOST = re.compile(r"/[^\x00-\x20]+|\[[0-9a-fA-F:.]+\](:\d+)?|[\w.-]+(:\d+)?")
# What MongoDB forbids in names (pymongo/database.py: _check_name), and Windows servers besides.
_BAD_NAME = re.compile(r'[\x00-\x20/\\."$*<>:|?]')
_RESERVED_NAMES = ("admin", "local", "config")
Fault = tuple[str, str]


def faults(settings: Mapping[str, Any]) -> Iterator[Fault]:
    """What is wrong with a template or a record, each by itself."""
    for key, value in settings.items():
        kinds = _TYPES.get(key)
        if kinds is None:
            yield str(key), f"is no setting of a MongoDB database (known are {', '.join(_TYPES)})"
        elif not isinstance(value, kinds) or isinstance(value, bool):
            expected = " or ".join(kind.__name__ for kind in kinds if kind is not type(None))
            yield key, f"is a {type(value).__name__}; give a {expected}"
        else:
            yield from _value_faults(key, value)
    if "CONN_URL" in settings and (twice := [key for key in _ADDRESS if key in settings]):
        yield "CONN_URL", f"and {', '.join(twice)} cannot both be given"


def _value_faults(key: str, value: Any) -> Iterator[Fault]:
    if isinstance(value, str) and allow_lists.control(f" {value}"):
        yield key, "holds a control character, or half of one"
    elif key == "NAME":
        yield from _name_faults(key, value)
    elif key == "CONN_URL":
        yield from _url_faults(value)
    elif key == "HOST" and not all(isinstance(host, str) and _HOST.fullmatch(host) for host in split(value)):
        yield key, "is no list of host names (with or without ports) or socket files"
    elif key == "PORT" and value not in (None, "") and not _is_port(str(value)):
        yield key, "is no port number"
    elif key == "OPTIONS":
        yield from ((f"OPTIONS.{name}", what) for name, item in value.items() for what in _option_faults(name, item))


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 6 and 0 < int(text) < 65536


def _name_faults(key: str, name: str) -> Iterator[Fault]:
    if name and _BAD_NAME.search(name):
        yield key, 'holds a character that MongoDB forbids in names (space / \\ . " $ * < > : | ?)'
    elif len(name.encode()) > 63:
        yield key, "has more than 63 bytes, MongoDB's limit"
    elif name.lower() in _RESERVED_NAMES:
        yield key, "is a database of MongoDB's own"


def _url_faults(url: str) -> Iterator[Fault]:
    scheme = url.partition("://")[0]
    if scheme not in _SCHEMES:
        yield "CONN_URL", f"must begin with {' or '.join(f'{known}://' for known in _SCHEMES)}"
        return
    found = from_url(url)
    if found is None:
        yield "CONN_URL", "is no MongoDB URL: mongodb://user:password@host:port/database?option=value"
        return
    if not found["NAME"]:
        yield "CONN_URL", "names no database: it ends in /<database name>"
    yield from _name_faults("CONN_URL", found["NAME"])
    for name, value in found["OPTIONS"].items():
        yield from (("CONN_URL", f"option {name}: {what}") for what in _option_faults(name, value))


def _option_faults(name: Any, value: Any) -> Iterator[str]:
    validator = common.VALIDATORS.get(str(name).lower())
    if validator is None:
        yield "is no option of pymongo.MongoClient"
    elif str(name).lower() in _OWN:
        yield "is not for OPTIONS"
    elif validator is not common.validate_readable:  # that one opens files: left to the client
        try:
            validator(name, value)
        except (PyMongoError, TypeError, ValueError, OverflowError):
            yield "has a value that pymongo.MongoClient refuses"


def from_url(url: str) -> dict[str, Any] | None:
    """The settings in a URL, its options among them; ``None`` if it is no MongoDB URL."""
    scheme, _, rest = url.partition("://")
    try:
        # Always as mongodb://, because parsing mongodb+srv:// asks the DNS (pymongo/uri_parser.py: parse_uri).
        parsed = uri_parser.parse_uri(f"mongodb://{rest}", validate=False, normalize=False)
    except (PyMongoError, TypeError, ValueError):
        return None
    found: dict[str, Any] = {"NAME": parsed["database"] or "", "SRV": _SCHEMES[scheme], "OPTIONS": parsed["options"]}
    found["HOST"], found["PORT"] = _address([*parsed["nodelist"]], found["SRV"])
    if parsed["username"]:  # else the template's credentials hold
        found |= {"USER": parsed["username"], "PASS": parsed["password"]}
    return found


def _address(nodes: list[tuple[str, int | None]], srv: bool) -> tuple[list[str], int | None]:
    names = [f"[{host}]" if ":" in host else host for host, _ in nodes]
    if srv or len(nodes) == 1:
        return names, None if srv else nodes[0][1]
    return [f"{name}:{port}" if port else name for name, (_, port) in zip(names, nodes, strict=True)], None


def split(hosts: Any) -> list[Any]:
    """The hosts in ``HOST``: a list, or text with commas."""
    return [host.strip() for host in hosts.split(",")] if isinstance(hosts, str) and hosts else list(hosts or [])
