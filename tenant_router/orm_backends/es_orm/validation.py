"""Validates a template and a record for Elasticsearch: each fault by its key, never with a value."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any
from urllib.parse import urlsplit

from elasticsearch import Elasticsearch

from tenant_router.orm_backends.es_orm.index_names import fault as name_fault

KEYS = ("HOSTS", "OPTIONS", "INDEX_PREFIX")
CREDENTIALS = ("api_key", "basic_auth", "bearer_auth", "http_auth")
MAX_PREFIX = 200  # characters, of the 255 bytes that Elasticsearch allows a name
_HOST_KEYS = {"host", "port", "scheme", "path_prefix"}
# Headers, because the client would write them into its debug log; credentials have options of their own.
_NO_OPTIONS = {"self", "hosts", "cloud_id", "headers", "_transport", "transport_class"}


def faults_of(merged: Mapping[str, Any], config: Mapping[str, Any], prefix: Any) -> Iterator[tuple[str, str]]:
    """Everything wrong with a record's ``config``; ``merged`` with its template, its prefix filled in."""
    for key in config:
        if key not in KEYS:
            yield key, f"is no setting of an Elasticsearch alias (known are {', '.join(KEYS)})"
    yield from host_faults(merged)
    options = config.get("OPTIONS", {})
    if not isinstance(options, Mapping):
        yield "OPTIONS", f"is a {type(options).__name__}, not an object"
    else:
        yield from ((f"OPTIONS.{key}", what) for key, what in _option_faults(options))
    yield from _prefix_faults(prefix)


def host_faults(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What is wrong with ``HOSTS``."""
    hosts = settings.get("HOSTS")
    if not isinstance(hosts, list | tuple) or not hosts:
        return [("HOSTS", "is missing, or no list of URLs or of objects with 'host' and 'port'")]
    return [(f"HOSTS[{place}]{key}", what) for place, host in enumerate(hosts) for key, what in _host_faults(host)]


def _host_faults(host: Any) -> Iterator[tuple[str, str]]:
    if isinstance(host, str):
        yield from (("", what) for what in _url_faults(host))
    elif not isinstance(host, Mapping):
        yield "", "is neither a URL nor an object with 'host' and 'port'"
    else:
        yield from ((f".{key}", "is no key of a host") for key in host if key not in _HOST_KEYS)
        if not isinstance(host.get("host"), str) or not host["host"]:
            yield ".host", "is missing, or no text"
        elif set(host["host"]) & set("/@?# "):
            yield ".host", "is no host name"
        port = str(host.get("port", 9200))
        if not (port.isascii() and port.isdigit() and len(port) < 6 and 0 < int(port) < 65536):
            yield ".port", "is no port number"
        if host.get("scheme", "http") not in ("http", "https"):
            yield ".scheme", "is neither 'http' nor 'https'"
        if not isinstance(host.get("path_prefix", ""), str):
            yield ".path_prefix", "is no text"


def _url_faults(url: str) -> Iterator[str]:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        yield "is no URL"
        return
    if parts.scheme not in ("http", "https"):
        yield "begins with neither 'http://' nor 'https://'"
    elif not parts.hostname or port == 0:
        yield "names no host"
    elif parts.query or parts.fragment:
        yield "has a query or a fragment, which a node's URL cannot have"


def _option_faults(options: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in options.items():
        if name not in _known_options():
            yield name, "is no option of the Elasticsearch client that can be given here"
        elif name in _CHECKS and not _CHECKS[name][0](value):
            yield name, f"is not {_CHECKS[name][1]}"
    if sum(name in options for name in CREDENTIALS) > 1:
        yield "api_key", f"cannot be given together with other credentials ({', '.join(CREDENTIALS)})"


@cache
def _known_options() -> frozenset[str]:
    return frozenset(inspect.signature(Elasticsearch.__init__).parameters) - _NO_OPTIONS


def _prefix_faults(prefix: Any) -> Iterator[tuple[str, str]]:
    if not isinstance(prefix, str):
        yield "INDEX_PREFIX", f"is a {type(prefix).__name__}, not text"
    elif len(prefix) > MAX_PREFIX:
        yield "INDEX_PREFIX", f"is longer than {MAX_PREFIX} characters ({{tenant}} filled in): give a shorter one"
    # The last character keeps names apart from the words of Elasticsearch's answers, which do not have it.
    elif prefix and (name_fault(prefix) or prefix.startswith(".") or prefix[-1] not in "-~" or "*" in prefix):
        yield "INDEX_PREFIX", "cannot begin an index name: lower case, a letter or digit first, '-' or '~' last, no '*'"


def _is_number(value: Any, least: float = 0.0) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > least


def _is_pair_or_text(value: Any) -> bool:
    pair = isinstance(value, list | tuple) and len(value) == 2 and all(isinstance(part, str) for part in value)
    return pair or isinstance(value, str)


_FLAG: tuple[Callable[[Any], bool], str] = (lambda value: isinstance(value, bool), "true or false")
_TEXT: tuple[Callable[[Any], bool], str] = (lambda value: isinstance(value, str), "text")
_CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "request_timeout": (_is_number, "a number of seconds above 0"),
    "max_retries": (lambda value: _is_number(value, -1), "a number, 0 or more"),
    "connections_per_node": (_is_number, "a number above 0"),
    "basic_auth": (_is_pair_or_text, "a list of user and password"),
    "api_key": (_is_pair_or_text, "text, or a list of id and key"),
    "bearer_auth": _TEXT,
    "ca_certs": _TEXT,
    "verify_certs": _FLAG,
    "http_compress": _FLAG,
    "retry_on_timeout": _FLAG,
}
