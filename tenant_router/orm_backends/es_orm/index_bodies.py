"""Confines the bodies that create indices, templates and data streams: aliases, patterns, mappings, settings."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from tenant_router.orm_backends.es_orm.errors import RequestRefused
from tenant_router.orm_backends.es_orm.references import IndexReferences, allow_only

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


def index(body: Any, refs: IndexReferences) -> Any:
    """The body that creates an index, or an index from another one."""
    return None if body is None else _parts(allow_only(refs.plain(body), _CREATE_KEYS, "an index"), refs)


def template(body: Any, refs: IndexReferences) -> Any:
    """An index template of either kind, or a component template."""
    return _parts(allow_only(refs.plain(body), _TEMPLATE_KEYS, "a template"), refs)


def mapping(body: Any, refs: IndexReferences) -> Any:
    """A mapping."""
    plain = refs.plain(body)
    # A template takes compressed text here, too.
    if not isinstance(plain, dict):
        raise RequestRefused("a mapping: an object is expected")
    _refuse_percolators(plain)
    return refs.confine(plain)


def settings(body: Any, refs: IndexReferences) -> Any:
    """Settings of an index, nested or with dots."""
    plain = refs.plain(body)
    if not isinstance(plain, dict):
        raise RequestRefused("settings: an object is expected")
    return _settings(plain, "", refs)


def alias(body: Any, refs: IndexReferences) -> Any:
    """What is said of one alias: its filter is a query."""
    if body is None:
        return None
    plain = allow_only(refs.plain(body), ALIAS_KEYS, "an alias")
    if not isinstance(plain.get("filter", {}), dict | None):
        raise RequestRefused("the filter of an alias: an object is expected")
    return refs.confine(plain)


def _parts(body: dict[str, Any], refs: IndexReferences) -> dict[str, Any]:
    return {key: _PARTS[key](value, refs) if key in _PARTS else refs.confine(value) for key, value in body.items()}


def _aliases(given: Any, refs: IndexReferences) -> Any:
    about = allow_only(given, given if isinstance(given, dict) else (), "aliases")
    return {refs.names.prefixed(name): alias(one, refs) for name, one in about.items()}


def _inner_template(given: Any, refs: IndexReferences) -> Any:
    return _parts(allow_only(given, _INDEX_KEYS, "a template"), refs)


def _patterns(given: Any, refs: IndexReferences) -> Any:
    return given if given is None or given == [] else refs.reference(given)


def _refuse_percolators(node: Any) -> None:
    """Refuse fields whose documents are queries, since documents are not looked into."""
    for inner in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        _refuse_percolators(inner)
    kind = node.get("type") if isinstance(node, dict) else None
    # In a dynamic template "{name}" stands for whatever a field is called.
    if isinstance(kind, str) and ("percolator" in kind or "{name}" in kind):
        raise RequestRefused("fields of the type percolator are not available: their documents are queries")


def _settings(node: Any, path: str, refs: IndexReferences) -> Any:
    if _COPYING.search(path):
        raise RequestRefused(f"the setting {path!r} is not available to a tenant")
    if isinstance(node, dict):
        return {key: _settings(value, f"{path}.{key}" if path else key, refs) for key, value in node.items()}
    if path.endswith("lifecycle.rollover_alias") and node is not None:
        return refs.reference(node)
    return node


_PARTS: dict[str, Callable[[Any, IndexReferences], Any]] = {
    "aliases": _aliases,
    "mappings": mapping,
    "settings": settings,
    "template": _inner_template,
    "index_patterns": _patterns,
    "composed_of": _patterns,
    "ignore_missing_component_templates": _patterns,
}
