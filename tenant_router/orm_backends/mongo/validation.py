"""Validates the settings of a MongoDB database: each fault by its key, never with a value."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from pymongo import client_options, common
from pymongo.errors import PyMongoError

from tenant_router import allow_lists
from tenant_router.orm_backends import host_names
from tenant_router.orm_backends.mongo import address
from tenant_router.orm_backends.mongo.allowed_options import MAX_HOSTS, MAX_POOL, option_fault, plain_name

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
_LONGEST = {"CONN_URL": 4_000, "USER": 255, "PASS": 4_000}  # characters, in a record
_ADDRESS = ("NAME", "USER", "PASS", "HOST", "PORT")
_OWN = ("connect", "username", "password", "host", "port")  # what else says, or what lazy clients rely on
# What MongoDB forbids in names (pymongo/database.py: _check_name), and Windows servers besides.
_BAD_NAME = re.compile(r'[\x00-\x20/\\."$*<>:|?]')
_RESERVED_NAMES = ("admin", "local", "config")
# What MongoClient raises for values and for combinations of them.
_REFUSALS = (PyMongoError, TypeError, ValueError, OverflowError)
Fault = tuple[str, str]
OptionFault = Callable[[Any, Any], str | None]


def faults(settings: Mapping[str, Any]) -> Iterator[Fault]:
    """What is wrong with what the settings say of an alias, each by itself."""
    yield from _faults(settings, settings, _refused_by_pymongo)


def record_faults(
    template: Mapping[str, Any], config: Mapping[str, Any], widen: Collection[str] = ()
) -> Iterator[Fault]:
    """The same of a tenant's record, which may say less; what it repeats of its ``template`` is none of it.

    ``widen``: ``ALLOW_OPTIONS``, names of options.
    """
    wider = frozenset(map(plain_name, widen))

    def refused(name: Any, value: Any) -> str | None:
        return (_refused_by_pymongo if plain_name(name) in wider else option_fault)(name, value)

    given = {key: value for key, value in config.items() if not _repeats(template, key, value)}
    if isinstance(given.get("OPTIONS"), Mapping) and isinstance(template.get("OPTIONS"), Mapping):
        given["OPTIONS"] = {k: v for k, v in given["OPTIONS"].items() if not _repeats(template["OPTIONS"], k, v)}
    for key, most in _LONGEST.items():
        if isinstance(given.get(key), str) and len(given[key]) > most:
            yield key, f"is longer than {most} characters"
    yield from _faults(given, config, refused)
    yield from _host_faults(given, address.from_url(given["CONN_URL"]) if _is_url(given.get("CONN_URL")) else None)


def address_faults(settings: Mapping[str, Any]) -> Iterator[Fault]:
    """What makes it impossible to say where the database is."""
    where = {key: value for key, value in settings.items() if key in ("NAME", "CONN_URL", "HOST", "PORT")}
    yield from _faults(where, where, lambda name, value: None)


def together(options: Mapping[str, Any], hosts: Collection[str], srv: bool) -> Iterator[Fault]:
    """What is wrong with complete arguments of a client, each of which is good by itself."""
    if options.get("directconnection") is True and (srv or len(hosts) > 1):
        yield "OPTIONS.directConnection", "goes with one host only"
    if _number(options.get("minpoolsize", 0)) > _number(options.get("maxpoolsize", MAX_POOL)):
        yield "OPTIONS.minPoolSize", "is above maxPoolSize"
    try:
        checked = dict(common.validate(name, options[name]) for name in _COMBINED & options.keys())
    except _REFUSALS:
        return  # of the template, which was looked at when the process began
    for key, what, combine in _COMBINATIONS:
        try:
            combine(checked, options)
        except _REFUSALS:
            yield key, what


def _credentials(checked: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    client_options._parse_credentials(options.get("username"), options.get("password"), None, checked)


# As client_options.ClientOptions does, but for what opens files (_parse_pool_options).
_COMBINATIONS: tuple[tuple[str, str, Callable[[Any, Any], Any]], ...] = (
    ("USER", "PASS, authSource and authMechanism do not go together, or one is missing", _credentials),
    ("OPTIONS.w", "does not go with journal", lambda checked, _: client_options._parse_write_concern(checked)),
    (
        "OPTIONS.readPreference",
        "does not go with maxStalenessSeconds or readPreferenceTags",
        lambda checked, _: client_options._parse_read_preference(checked),
    ),
)
_COMBINED = {
    *("authmechanism", "authmechanismproperties", "authsource", "w", "wtimeoutms", "journal", "fsync"),
    *("readpreference", "readpreferencetags", "maxstalenessseconds", "read_preference"),
}


def _faults(settings: Mapping[str, Any], whole: Mapping[str, Any], refused: OptionFault) -> Iterator[Fault]:
    for key, value in settings.items():
        kinds = _TYPES.get(key)
        if kinds is None:
            close = allow_lists.nearest(str(key), _TYPES)
            hint = f": did you mean {close!r}?" if close else f" (known are {', '.join(_TYPES)})"
            yield allow_lists.shown(key), f"is no setting of a MongoDB database{hint}"
        elif not isinstance(value, kinds) or isinstance(value, bool):
            expected = " or ".join(kind.__name__ for kind in kinds if kind is not type(None))
            yield key, f"is a {type(value).__name__}; give a {expected}"
        else:
            yield from _value_faults(key, value, refused)
    if "CONN_URL" in settings and (twice := [key for key in _ADDRESS if key in whole]):
        yield "CONN_URL", f"and {', '.join(twice)} cannot both be given"


def _value_faults(key: str, value: Any, refused: OptionFault) -> Iterator[Fault]:
    if isinstance(value, str) and value and allow_lists.control(value):
        yield key, "holds a control character, or half of one"
    elif key == "NAME":
        yield from _name_faults(key, value)
    elif key == "CONN_URL":
        yield from _url_faults(value, refused)
    elif key == "HOST" and not all(isinstance(host, str) and _is_host(host) for host in address.split(value)):
        yield key, "is no list of host names (with or without ports) or socket files"
    elif key == "PORT" and value not in (None, "") and host_names.port_number(value) is None:
        yield key, "is no port number"
    elif key == "OPTIONS":
        for name, item in value.items():
            if what := refused(name, item):
                yield f"OPTIONS.{allow_lists.shown(name)}", what


def _is_host(text: str) -> bool:
    if text.startswith("/"):
        return not allow_lists.control(text)
    host, port = address.host_and_port(text)
    return host_names.is_host(host) and (port is None or host_names.port_number(port) is not None)


def _host_faults(given: Mapping[str, Any], url: Mapping[str, Any] | None) -> Iterator[Fault]:
    """What only a template's ``HOST`` may be."""
    key, hosts = ("HOST", given.get("HOST")) if url is None else ("CONN_URL", url["HOST"])
    found = address.split(hosts) if isinstance(hosts, str | list | tuple) else []
    if len(found) > MAX_HOSTS:
        yield key, f"names more than {MAX_HOSTS} hosts"
    elif any(isinstance(host, str) and address.is_socket(address.host_and_port(host)[0]) for host in found):
        yield key, "names the file of a socket, which a record may not"


def _name_faults(key: str, name: str) -> Iterator[Fault]:
    if name and _BAD_NAME.search(name):
        yield key, 'holds a character that MongoDB forbids in names (space / \\ . " $ * < > : | ?)'
    elif len(name.encode()) > 63:
        yield key, "has more than 63 bytes, MongoDB's limit"
    elif name.lower() in _RESERVED_NAMES:
        yield key, "is a database of MongoDB's own"


def _is_url(url: Any) -> bool:
    return isinstance(url, str) and url.partition("://")[0] in address.SCHEMES


def _url_faults(url: str, refused: OptionFault) -> Iterator[Fault]:
    if not _is_url(url):
        yield "CONN_URL", f"must begin with {' or '.join(f'{known}://' for known in address.SCHEMES)}"
        return
    found = address.from_url(url)
    if found is None or not all(map(_is_host, found["HOST"])):
        yield "CONN_URL", "is no MongoDB URL: mongodb://user:password@host:port/database?option=value"
        return
    if not found["NAME"]:
        yield "CONN_URL", "names no database: it ends in /<database name>"
    for key in ("NAME", "USER", "PASS"):
        yield from (("CONN_URL", f"has a part which {what}") for _, what in _value_faults(key, found.get(key), refused))
    for name, value in found["OPTIONS"].items():
        if what := refused(name, value):
            yield "CONN_URL", f"has {allow_lists.parameter(name, url)}, which {what}"


def _refused_by_pymongo(name: Any, value: Any) -> str | None:
    option = plain_name(name)
    validator = common.VALIDATORS.get(option)
    if validator is None:
        return "is no option of pymongo.MongoClient"
    if option in _OWN:
        return "is not for OPTIONS"
    if validator is not common.validate_readable:  # that one opens files: left to the client
        try:
            validator(option, value)
        except _REFUSALS:
            return "has a value that pymongo.MongoClient refuses"
    return None


def _repeats(template: Mapping[str, Any], key: str, value: Any) -> bool:
    return key in template and type(template[key]) is type(value) and bool(template[key] == value)


def _number(value: Any) -> int:
    return value if isinstance(value, int) else MAX_POOL
