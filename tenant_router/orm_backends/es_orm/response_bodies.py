"""Answers, given back with the names and the ids that the tenant's application knows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tenant_router.orm_backends.es_orm.names import Names
from tenant_router.orm_backends.es_orm.signed_ids import Seals

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

Rewrite = Callable[[Any, Names, Seals], Any]


def hits(body: Any, names: Names, seals: Seals) -> Any:
    """Documents found or written: each one's ``_index``; ids of the search seem to come sealed."""
    _hits(body, names)
    _seal(body, "_scroll_id", "scroll", seals)
    _seal(body, "pit_id", "pit", seals)
    return body


def named(body: Any, names: Names, seals: Seals) -> Any:
    """Answers about indices, aliases and templates, whose keys are names as well."""
    return _named(body, names) if names.prefix else body


def keyed(body: Any, names: Names, seals: Seals) -> Any:
    """Answers whose outermost keys alone are names."""
    return {names.outward(key): value for key, value in body.items()} if isinstance(body, dict) else body


def rows(body: Any, names: Names, seals: Seals) -> Any:
    """The tables of ``cat``: text, or rows of JSON."""
    if isinstance(body, str):
        return names.outward_text(body)
    for row in body if isinstance(body, list) else ():
        row.update({column: _cell(value, names) for column, value in row.items() if column in _COLUMNS})
    return body


def error(body: Any, names: Names, seals: Seals) -> Any:
    """What an error says; it can only be about names that were sent, the tenant's own."""
    if isinstance(body, str):
        return names.outward_text(body)
    _hits(body, names)
    return _named(body, names) if names.prefix else body


def raw(body: Any, names: Names, seals: Seals) -> Any:
    """Answers that hold no name."""
    return body


def _async(body: Any, names: Names, seals: Seals) -> Any:
    _seal(body, "id", "async", seals)
    if isinstance(body, dict) and "response" in body:
        hits(body["response"], names, seals)
    return body


def _eql(body: Any, names: Names, seals: Seals) -> Any:
    _seal(body, "id", "eql", seals)
    return hits(body, names, seals)


def _pit(body: Any, names: Names, seals: Seals) -> Any:
    _seal(body, "id", "pit", seals)
    return body


def _task(body: Any, names: Names, seals: Seals) -> Any:
    _seal(body, "task", "task", seals)
    return hits(body, names, seals)


def _seal(body: Any, key: str, kind: str, seals: Seals) -> None:
    if isinstance(body, dict) and isinstance(body.get(key), str):
        body[key] = seals.seal(kind, body[key])


def _hits(node: Any, names: Names) -> None:
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
                node[key] = names.outward_all(value)
            else:
                _hits(value, names)


def _hit_value(key: str, value: str, names: Names) -> str:
    if key in _HIT_NAMES:
        return names.outward(value)
    return names.outward_text(value) if key == "reason" else value


def _named(node: Any, names: Names) -> Any:
    if isinstance(node, list):
        return [_named(item, names) for item in node]
    if not isinstance(node, dict):
        return node
    return {names.outward(key): _member(key, value, names) for key, value in node.items()}


def _member(key: str, value: Any, names: Names) -> Any:
    if key in _DATA:
        return value
    if isinstance(value, str):
        return names.outward(value) if key in _NAMES else value
    if key in _LISTS and isinstance(value, list):
        return [names.outward(item) if isinstance(item, str) else _named(item, names) for item in value]
    return _named(value, names)


def _cell(value: Any, names: Names) -> Any:
    return names.outward(value) if not str(value).startswith("[") else names.outward_text(value)


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
