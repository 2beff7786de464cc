"""Confines request bodies: every index that they name becomes the tenant's own.

``CONFINE`` maps the third column of ``routes.py`` to a function of the body. Each returns a new
body, made of plain JSON types; bodies that come as text are read first, so that what is checked
is what is sent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from tenant_router.orm_backends.es_orm.errors import RequestRefused
from tenant_router.orm_backends.es_orm.index_bodies import ALIAS_KEYS, alias, index, mapping, settings, template
from tenant_router.orm_backends.es_orm.ndjson import bulk, msearch
from tenant_router.orm_backends.es_orm.references import IndexReferences, allow_only

_BY_QUERY = {"query", "size", "slice", "sort", "_source", "runtime_mappings"}
_NAMES = {"index", "indices", "alias", "aliases"}
_ACTIONS = {
    "add": _NAMES | ALIAS_KEYS | {"must_exist"},
    "remove": _NAMES | {"must_exist"},
    "remove_index": {"index", "indices", "must_exist"},
}


def _none(body: Any, refs: IndexReferences) -> Any:
    if body is not None:
        raise RequestRefused("this request takes no body")
    return None


def _query(body: Any, refs: IndexReferences) -> Any:
    return None if body is None else refs.confine(refs.read(body))


def _search(body: Any, refs: IndexReferences) -> Any:
    confined = _query(body, refs)
    pit = confined.get("pit", {"id": ""}) if isinstance(confined, dict) else {"id": ""}
    if not isinstance(pit, dict) or not isinstance(pit.get("id"), str):
        raise RequestRefused("'pit' is an object with an 'id'")
    return confined


def _rank(body: Any, refs: IndexReferences) -> Any:
    # A search template is filled in by the server: what it will ask for cannot be seen here.
    plain = refs.plain(body)
    allow_only(plain, {"requests", "metric", "max_concurrent_searches"}, "rank_eval")
    for request in plain.get("requests") or ():
        allow_only(request, {"id", "request", "ratings", "summary_fields"}, "rank_eval's requests")
    return refs.confine(plain)


def _document(body: Any, refs: IndexReferences) -> Any:
    return body  # the application's own data


def _scroll(body: Any, refs: IndexReferences) -> Any:
    return _opened(body, refs, "scroll_id", "scroll", {"scroll"})


def _scrolls(body: Any, refs: IndexReferences) -> Any:
    plain = allow_only(refs.plain(body), {"scroll_id"}, "clearing scrolls")
    return {"scroll_id": refs.signed_ids.unsign_all("scroll", plain.get("scroll_id"))}


def _pit(body: Any, refs: IndexReferences) -> Any:
    return _opened(body, refs, "id", "pit", set())


def _opened(body: Any, refs: IndexReferences, key: str, kind: str, others: set[str]) -> Any:
    plain = allow_only(refs.plain(body), {key} | others, f"a {kind}")
    return {**plain, key: refs.signed_ids.unsign(kind, plain.get(key))}


def _reindex(body: Any, refs: IndexReferences) -> Any:
    # Its script could send a document to any index by ctx._index; "remote" is another cluster.
    plain = allow_only(refs.plain(body), {"source", "dest", "conflicts", "max_docs", "size"}, "reindex")
    source = allow_only(plain.get("source"), {"index"} | _BY_QUERY, "reindex's source")
    dest = allow_only(plain.get("dest"), {"index", "op_type", "pipeline", "routing", "version_type"}, "reindex's dest")
    source = {**refs.confine(source), "index": refs.reference(source.get("index"))}
    return {**plain, "source": source, "dest": {**dest, "index": refs.reference(dest.get("index"))}}


def _aliases(body: Any, refs: IndexReferences) -> Any:
    plain = allow_only(refs.plain(body), {"actions"}, "aliases")
    return {"actions": [_action(action, refs) for action in plain.get("actions") or ()]}


def _action(action: Any, refs: IndexReferences) -> Any:
    allow_only(action, _ACTIONS, "an action on aliases")
    return {verb: _one_action(verb, given, refs) for verb, given in action.items()}


def _one_action(verb: str, given: Any, refs: IndexReferences) -> dict[str, Any]:
    allow_only(given, _ACTIONS[verb], f"the action {verb!r}")
    about = {key: value for key, value in given.items() if key in ALIAS_KEYS}
    confined = {**given, **alias(about, refs)}
    return {key: refs.reference(value) if key in _NAMES else value for key, value in confined.items()}


def _modify(body: Any, refs: IndexReferences) -> Any:
    plain = allow_only(refs.plain(body), {"actions"}, "modifying a data stream")
    return {"actions": [_modification(action, refs) for action in plain.get("actions") or ()]}


def _modification(action: Any, refs: IndexReferences) -> dict[str, Any]:
    allow_only(action, {"add_backing_index", "remove_backing_index"}, "modifying a data stream")
    for given in action.values():
        allow_only(given, {"data_stream", "index"}, "modifying a data stream")
    return {verb: {key: refs.reference(name) for key, name in given.items()} for verb, given in action.items()}


CONFINE: Mapping[str, Callable[[Any, IndexReferences], Any]] = {
    "none": _none,
    "query": _query,
    "search": _search,
    "rank": _rank,
    "document": _document,
    "bulk": bulk,
    "msearch": partial(msearch, all_indices=True),
    "msearch_in": msearch,
    "scroll": _scroll,
    "scrolls": _scrolls,
    "pit": _pit,
    "reindex": _reindex,
    "aliases": _aliases,
    "alias": alias,  # Elasticsearch would take "index" and "alias" from here, above those of the path
    "modify": _modify,
    "create": index,
    "template": template,
    "mapping": mapping,
    "settings": settings,
}
