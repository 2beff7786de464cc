"""Rewrites response bodies: index names lose the tenant's prefix, ids of searches are signed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tenant_router.orm_backends.es_orm.index_names import IndexNames
from tenant_router.orm_backends.es_orm.signed_ids import SignedIds

# Below these are the application's own data, in which nothing is a name.
_DATA = frozenset(
    {"_source", "fields", "highlight", "key", "after_key", "sort", "properties", "runtime", "dynamic_templates"}
    | {"_meta", "analysis", "filter"}
)
_HIT_NAMES = frozenset({"_index", "index"})
_NAMES = _HIT_NAMES | {
    "name",
    "alias",
    "data_stream",
    "provided_name",
    "index.provided_name",
    "old_index",
    "new_index",
    "index_name",
    "template",
    "rollover_alias",
    "index.lifecycle.rollover_alias",
    "resource.id",
}
_LISTS = frozenset(
    {"indices", "aliases", "index_patterns", "composed_of", "ignore_missing_component_templates", "data_streams"}
)
_COLUMNS = frozenset({"index", "i", "idx", "alias", "a", "name", "n", "index_patterns", "t", "composed_of", "c"})

Rewrite = Callable[[Any, IndexNames, SignedIds], Any]


def hits(body: Any, names: IndexNames, signed_ids: SignedIds) -> Any:
    """Documents found or written: the ``_index`` of each; the ids of scrolls and points in time are signed."""
    _hits(body, names)
    _sign(body, "_scroll_id", "scroll", signed_ids)
    _sign(body, "pit_id", "pit", signed_ids)
    return body


def named(body: Any, names: IndexNames, signed_ids: SignedIds) -> Any:
    """Answers about indices, aliases and templates, whose keys are names as well."""
    return _named(body, names) if names.prefix else body


def keyed(body: Any, names: IndexNames, signed_ids: SignedIds) -> Any:
    """Answers whose outermost keys alone are names."""
    return {names.unprefixed(key): value for key, value in body.items()} if isinstance(body, dict) else body


def rows(body: Any, names: IndexNames, signed_ids: SignedIds) -> Any:
    """The tables of ``cat``: text, or rows of JSON."""
    if isinstance(body, str):
        return names.unprefixed_text(body)
    for row in body if isinstance(body, list) else ():
        row.update({column: _cell(value, names) for column, value in row.items() if column in _COLUMNS})
    return body


def error(body: Any, names: IndexNames, signed_ids: SignedIds) -> Any:
    """What an error says; it can only be about names that were sent, the tenant's own."""
    if isinstance(body, str):
        return names.unprefixed_text(body)
    _hits(body, names)
    return _named(body, names) if names.prefix else body


def raw(body: Any, names: IndexNames, signed_ids: SignedIds) -> Any:
    """Answers that hold no name."""
    return body


def _async(body: Any, names: IndexNames, signed_ids: SignedIds) -> Any:
    _sign(body, "id", "async", signed_ids)
    if isinstance(body, dict) and "response" in body:
        hits(body["response"], names, signed_ids)
    return body


def _eql(body: Any, names: IndexNames, signed_ids: SignedIds) -> Any:
    _sign(body, "id", "eql", signed_ids)
    return hits(body, names, signed_ids)


def _pit(body: Any, names: IndexNames, signed_ids: SignedIds) -> Any:
    _sign(body, "id", "pit", signed_ids)
    return body


def _task(body: Any, names: IndexNames, signed_ids: SignedIds) -> Any:
    _sign(body, "task", "task", signed_ids)
    return hits(body, names, signed_ids)


def _sign(body: Any, key: str, kind: str, signed_ids: SignedIds) -> None:
    if isinstance(body, dict) and isinstance(body.get(key), str):
        body[key] = signed_ids.sign(kind, body[key])


def _hits(node: Any, names: IndexNames) -> None:
    """In place: an answer is ours alone, and may be large."""
    if isinstance(node, list):
        for item in node:
            _hits(item, names)
    elif isinstance(node, dict):
        for key, value in node.items():
            if key in _DATA:
                continue
            if isinstance(value, str):
                node[key] = _hit_value(key, value, names)
            elif key == "indices" and isinstance(value, list):
                node[key] = names.unprefixed_all(value)
            else:
                _hits(value, names)


def _hit_value(key: str, value: str, names: IndexNames) -> str:
    if key in _HIT_NAMES:
        return names.unprefixed(value)
    return names.unprefixed_text(value) if key == "reason" else value


def _named(node: Any, names: IndexNames) -> Any:
    if isinstance(node, list):
        return [_named(item, names) for item in node]
    if not isinstance(node, dict):
        return node
    return {names.unprefixed(key): _member(key, value, names) for key, value in node.items()}


def _member(key: str, value: Any, names: IndexNames) -> Any:
    if key in _DATA:
        return value
    if isinstance(value, str):
        return names.unprefixed(value) if key in _NAMES else value
    if key in _LISTS and isinstance(value, list):
        return [names.unprefixed(item) if isinstance(item, str) else _named(item, names) for item in value]
    return _named(value, names)


def _cell(value: Any, names: IndexNames) -> Any:
    return names.unprefixed(value) if not str(value).startswith("[") else names.unprefixed_text(value)


REWRITE: Mapping[str, Rewrite] = {
    "raw": raw,
    "hits": hits,
    "names": named,
    "keys": keyed,
    "rows": rows,
    "async": _async,
    "eql": _eql,
    "pit": _pit,
    "task": _task,
}
