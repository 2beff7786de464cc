"""What a tenant's record may say of a cache: the allow-lists, for all backends and for each of Django's.

A record is data. Nothing is imported to look at it; what names code, a local file or how keys are made
comes from the template in the settings, or is allowed by name in ``TENANT_ROUTER_CACHE_SETTINGS["ALLOW_OPTIONS"]``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from tenant_router import allow_lists
from tenant_router.allow_lists import AllowList, Choice, Flag, Number, Text

Fault = tuple[str, str]

_YEARS = 10 * 365 * 86_400  # seconds
_SECONDS = Number(0, 3_600, fraction=True)
_NEVER = frozenset({"BACKEND", "KEY_FUNCTION"})  # whatever the settings allow

_KEYS: AllowList = {
    "LOCATION": allow_lists.ANYTHING,
    "OPTIONS": allow_lists.ANYTHING,
    "TIMEOUT": Number(0, _YEARS, none=True),
    "VERSION": Number(0, 10**9),
    "KEY_PREFIX": Text("text without spaces", r"[^\s\x00-\x20\x7f]*", 100),
}
_ANY: AllowList = {"MAX_ENTRIES": Number(1, 10**9), "CULL_FREQUENCY": Number(0, 10**6)}
# redis-py's, as Django passes them on (cache/backends/redis.py) and as a URL's parameters
_REDIS: AllowList = {
    "db": Number(0, 10_000),
    "username": Text("a name", most=255),
    "password": Text("text", most=4_000),
    "socket_timeout": _SECONDS,
    "socket_connect_timeout": _SECONDS,
    "socket_keepalive": Flag(),
    "retry_on_timeout": Flag(),
    "health_check_interval": Number(0, 86_400),
    "max_connections": Number(1, 1_000),
    "client_name": Text("a name", r"[\w.:-]*", 100),
    "protocol": Choice(2, 3),
    "ssl_cert_reqs": Choice("none", "optional", "required"),
    "ssl_check_hostname": Flag(),
}
_PYMEMCACHE: AllowList = {
    "connect_timeout": _SECONDS,
    "timeout": _SECONDS,
    "no_delay": Flag(),
    "ignore_exc": Flag(),
    "use_pooling": Flag(),
    "max_pool_size": Number(1, 1_000),
    "pool_idle_timeout": _SECONDS,
    "retry_attempts": Number(0, 100),
    "retry_timeout": _SECONDS,
    "dead_timeout": _SECONDS,
}
_PYLIBMC: AllowList = {
    "binary": Flag(),
    "username": Text("a name", most=255),
    "password": Text("text", most=4_000),
}
_DJANGO_REDIS: AllowList = {
    "PASSWORD": Text("text", most=4_000),
    "SOCKET_TIMEOUT": _SECONDS,
    "SOCKET_CONNECT_TIMEOUT": _SECONDS,
    "IGNORE_EXCEPTIONS": Flag(),
}
_SERVER = re.compile(r"(?:unix:)?/[^\s\x00]+|\[[0-9A-Fa-f:.]+\](?::\d{1,5})?|[\w.-]{1,255}(?::\d{1,5})?")
_HOST = re.compile(r"[\w.-]{1,255}|[0-9A-Fa-f:.]+")
_TABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_$]{0,62}")


def faults(template: Mapping[str, Any], config: Mapping[str, Any], widen: Collection[str]) -> Iterator[Fault]:
    """Every fault of what a record says of the cache of a ``template``, as ``(key, what is wrong)``, without values.

    ``widen``: the ``ALLOW_OPTIONS`` of the settings, keys of ``OPTIONS``, or of a template that has more than Django.
    """
    options, check_location = _BACKENDS.get(template["BACKEND"], (_ANY, _other_faults))
    yield from allow_lists.faults(config, _KEYS, [key for key in widen if key in template and key not in _NEVER])
    given = config.get("OPTIONS", {})
    if not isinstance(given, Mapping):
        yield "OPTIONS", f"is a {type(given).__name__}; give a dictionary"
    elif given:
        for key, what in allow_lists.faults(given, {**_ANY, **options}, widen):
            yield f"OPTIONS.{key}", what
    if "LOCATION" in config:
        for what in check_location(template.get("LOCATION", ""), config["LOCATION"]):
            yield "LOCATION", what


def location(template: Mapping[str, Any], given: Any) -> Any:
    """A record's ``LOCATION``, or where that is: a relative folder is one below the template's."""
    return _folder(template["LOCATION"], given) if _is_folder(template) else given


def _is_folder(template: Mapping[str, Any]) -> bool:
    check = _BACKENDS.get(template["BACKEND"], (_ANY, _other_faults))[1]
    return check is _folder_faults or (check is _other_faults and _is_path(template.get("LOCATION")))


def _is_path(value: object) -> bool:
    return isinstance(value, os.PathLike) or (isinstance(value, str) and os.path.isabs(value))


def _folder(base: Any, given: str) -> str:
    return os.path.realpath(os.path.join(os.path.realpath(base), given))


def _folder_faults(base: Any, given: Any) -> Iterator[str]:
    if not isinstance(given, str) or _control(given):
        yield "is no folder"
    elif not base:
        yield "is not allowed, because the template has none below which it could lie"
    else:
        root = os.path.realpath(base)
        if os.path.commonpath([root, _folder(base, given)]) != root:
            yield "is a folder that does not lie below the template's"


def _table_faults(base: Any, given: Any) -> Iterator[str]:
    if not isinstance(given, str) or _TABLE.fullmatch(given) is None:
        yield "is no name of a table"


def _name_faults(base: Any, given: Any) -> Iterator[str]:
    fault = Text("a name", most=200).fault(given)
    if fault:
        yield fault


def _redis_faults(base: Any, given: Any) -> Iterator[str]:
    for url in _servers(given):
        if not isinstance(url, str):
            yield "is neither a URL nor a list of them"
        else:
            yield from _url_faults(url)


def _url_faults(url: str) -> Iterator[str]:
    """What a Redis URL says, through the same list: redis-py makes arguments of all its parameters."""
    try:
        parts = urlsplit(str.__str__(url))
        host, _ = unquote(parts.hostname or ""), parts.port
    except ValueError:
        parts, host = None, ""
    if parts is None or parts.scheme not in ("redis", "rediss", "unix") or _control(url):
        yield "is no redis://, rediss:// or unix:// URL"
        return
    if parts.scheme != "unix" and ((host and _HOST.fullmatch(host) is None) or not re.fullmatch(r"/?\d*", parts.path)):
        yield "is a URL with something other than a host and the number of a database"
    if ambiguous := allow_lists.ambiguity(url):
        yield f"is a URL that {ambiguous}"
    given = {key: _REDIS.get(key, allow_lists.ANYTHING).parse(text) for key, text in parse_qsl(parts.query, True)}
    for key, what in allow_lists.faults(given, {**_REDIS, "timeout": _SECONDS}):
        yield f"is a URL with {allow_lists.parameter(key, url)}, which {what}"


def _memcached_faults(base: Any, given: Any) -> Iterator[str]:
    if not all(isinstance(each, str) and _SERVER.fullmatch(each) for each in _servers(given)):
        yield "is neither <host>:<port>, nor a socket, nor a list of them"


def _other_faults(base: Any, given: Any) -> Iterator[str]:
    """Of a backend that is not known here and not imported to look: what its template's place looks like."""
    if _is_path(base):
        yield from _folder_faults(base, given)
        return
    for each in _servers(given):
        if isinstance(each, str) and "://" in each:
            yield from _url_faults(each)
        elif not isinstance(each, str) or len(each) > 200 or re.search(r"[/\\]|\.\.", each) or _control(each):
            yield "is neither a name, nor <host>:<port>, nor a redis:// URL, nor a list of them"


def _control(text: str) -> bool:
    return allow_lists.control(f" {text}")


def _servers(given: Any) -> Sequence[Any]:
    """One by one, as Django's backends take a text apart."""
    if isinstance(given, str):
        return re.split("[;,]", given)
    return given if isinstance(given, list | tuple) and given else [None]


_DJANGO = "django.core.cache.backends"
_BACKENDS: dict[str, tuple[AllowList, Callable[[Any, Any], Iterator[str]]]] = {
    f"{_DJANGO}.redis.RedisCache": (_REDIS, _redis_faults),
    f"{_DJANGO}.memcached.PyMemcacheCache": (_PYMEMCACHE, _memcached_faults),
    f"{_DJANGO}.memcached.PyLibMCCache": (_PYLIBMC, _memcached_faults),
    f"{_DJANGO}.filebased.FileBasedCache": ({}, _folder_faults),
    f"{_DJANGO}.db.DatabaseCache": ({}, _table_faults),
    f"{_DJANGO}.locmem.LocMemCache": ({}, _name_faults),
    f"{_DJANGO}.dummy.DummyCache": ({}, _name_faults),
    "django_redis.cache.RedisCache": (_DJANGO_REDIS, _redis_faults),
}
