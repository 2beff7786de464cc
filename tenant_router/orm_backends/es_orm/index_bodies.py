"""Bodies that make indices, templates and data streams: their aliases, patterns, mappings and settings."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from tenant_router.orm_backends.es_orm.errors import RequestRefused
from tenant_router.orm_backends.es_orm.references import References, only

ALIAS_KEYS = {"filter", "routing", "index_routing", "search_routing", "is_write_index", "is_hidden"}
_INDEX_KEYS = {"settings", "mappings", "aliases", "lifecycle", "data_stream_options"}
_CREATE_KEYS = _INDEX_KEYS | {"conditions", "max_single_primary_size"}
_TEMPLATE_KEYS = _INDEX_KEYS | {
    "index_patterns",
    "template",
    "composed_of",
    "ignore_missing_component_templates",
    "data_stream",
    "priority",
    "order",
    "version",
    "_meta",
    "allow_auto_create",
    "deprecated",
}
# Settings by which Elasticsearch itself copies one index into another; they are private there, too.
_COPYING = re.compile(r"(^|\.)(resize|shrink|split|clone|xpack|store\.(type|snapshot))(\.|$)")


def index(body: Any, to: References) -> Any:
    """The body that creates an index, or an index from another one."""
    return None if body is None else _parts(only(to.plain(body), _CREATE_KEYS, "an index"), to)


def template(body: Any, to: References) -> Any:
    """An index template of either kind, or a component template."""
    return _parts(only(to.plain(body), _TEMPLATE_KEYS, "a template"), to)


def mapping(body: Any, to: References) -> Any:
    """A mapping."""
    plain = to.plain(body)
    # A template takes compressed text here, too.
    if not isinstance(plain, dict):
        raise RequestRefused("a mapping: an object is expected")
    _refuse_percolators(plain)
    return to.confine(plain)


def settings(body: Any, to: References) -> Any:
    """Settings of an index, nested or with dots."""
    plain = to.plain(body)
    if not isinstance(plain, dict):
        raise RequestRefused("settings: an object is expected")
    return _settings(plain, "", to)


def alias(body: Any, to: References) -> Any:
    """What is said of one alias: its filter is a query."""
    if body is None:
        return None
    plain = only(to.plain(body), ALIAS_KEYS, "an alias")
    if not isinstance(plain.get("filter", {}), dict | None):
        raise RequestRefused("the filter of an alias: an object is expected")
    return to.confine(plain)


def _parts(body: dict[str, Any], to: References) -> dict[str, Any]:
    return {key: _PARTS[key](value, to) if key in _PARTS else to.confine(value) for key, value in body.items()}


def _aliases(given: Any, to: References) -> Any:
    about = only(given, given if isinstance(given, dict) else (), "aliases")
    return {to.names.single(name): alias(one, to) for name, one in about.items()}


def _inner_template(given: Any, to: References) -> Any:
    return _parts(only(given, _INDEX_KEYS, "a template"), to)


def _patterns(given: Any, to: References) -> Any:
    return to.names.value(given) if given else given


def _refuse_percolators(node: Any) -> None:
    """Refuse fields whose documents are queries, since documents are not looked into."""
    for inner in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        _refuse_percolators(inner)
    kind = node.get("type") if isinstance(node, dict) else None
    # In a dynamic template "{name}" stands for whatever a field is called.
    if isinstance(kind, str) and ("percolator" in kind or "{name}" in kind):
        raise RequestRefused("fields of the type percolator are not available: their documents are queries")


def _settings(node: Any, path: str, to: References) -> Any:
    if _COPYING.search(path):
        raise RequestRefused(f"the setting {path!r} is not available to a tenant")
    if isinstance(node, dict):
        return {key: _settings(value, f"{path}.{key}" if path else key, to) for key, value in node.items()}
    if path.endswith("lifecycle.rollover_alias") and isinstance(node, str):
        return to.names.single(node)
    return node


_PARTS: dict[str, Callable[[Any, References], Any]] = {
    "aliases": _aliases,
    "mappings": mapping,
    "settings": settings,
    "template": _inner_template,
    "index_patterns": _patterns,
    "composed_of": _patterns,
    "ignore_missing_component_templates": _patterns,
}
