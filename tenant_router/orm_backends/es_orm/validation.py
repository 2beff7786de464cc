"""Validates a template and a record for Elasticsearch: each fault by its key, never with a value."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from typing import Any

from elasticsearch import Elasticsearch

from tenant_router import allow_lists
from tenant_router.orm_backends.es_orm import nodes
from tenant_router.orm_backends.es_orm.allowed_options import MAX_HOSTS, OPTIONS
from tenant_router.orm_backends.es_orm.index_names import fault as name_fault

KEYS = ("HOSTS", "OPTIONS", "INDEX_PREFIX")
CREDENTIALS = ("api_key", "basic_auth", "bearer_auth", "http_auth")
MAX_PREFIX = 200  # characters, of the 255 bytes that Elasticsearch allows a name
# Headers, because the client would write them into its debug log; credentials have options of their own.
_NO_OPTIONS = {"self", "hosts", "cloud_id", "headers", "_transport", "transport_class"}


def faults_of(
    template: Mapping[str, Any], config: Mapping[str, Any], prefix: Any, widen: Collection[str] = ()
) -> Iterator[tuple[str, str]]:
    """Everything wrong with a record's ``config``; what it repeats of its ``template`` is none of it.

    ``prefix``: of its index names, filled in. ``widen``: ``ALLOW_OPTIONS``, names of options.
    """
    for key in config:
        if key not in KEYS:
            yield allow_lists.shown(key), _unknown(key)
    yield from host_faults({**template, **config})
    hosts = config.get("HOSTS")
    if isinstance(hosts, list | tuple) and len(hosts) > MAX_HOSTS:
        yield "HOSTS", f"names more than {MAX_HOSTS} nodes"
    options = config.get("OPTIONS", {})
    if not isinstance(options, Mapping):
        yield "OPTIONS", f"is a {type(options).__name__}, not an object"
    else:
        given = {
            name: value for name, value in options.items() if not _repeats(template.get("OPTIONS", {}), name, value)
        }
        yield from ((f"OPTIONS.{key}", what) for key, what in _option_faults(given, widen))
    yield from _prefix_faults(prefix)


def host_faults(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What is wrong with ``HOSTS``."""
    return list(nodes.faults(settings.get("HOSTS")))


def _option_faults(options: Mapping[str, Any], widen: Collection[str]) -> Iterator[tuple[str, str]]:
    for name in options:
        if name in widen and name not in _known_options():
            yield allow_lists.shown(name), "is no option of the Elasticsearch client that can be given here"
    yield from allow_lists.faults(options, OPTIONS, widen)
    if sum(name in options for name in CREDENTIALS) > 1:
        yield "api_key", f"cannot be given together with other credentials ({', '.join(CREDENTIALS)})"


def _unknown(key: str) -> str:
    close = allow_lists.nearest(str(key), KEYS)
    hint = f": did you mean {close!r}?" if close else f" (known are {', '.join(KEYS)})"
    return f"is no setting of an Elasticsearch alias{hint}"


def _repeats(template: Mapping[str, Any], name: str, value: Any) -> bool:
    return name in template and type(template[name]) is type(value) and bool(template[name] == value)


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
