"""Confines newline-delimited JSON (NDJSON), the bodies of ``_bulk`` and ``_msearch``.

The lines may come as objects, as text, or as text that holds several lines (the bulk helpers
send text). They are taken apart here exactly as the server would, and sent one by one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tenant_router.orm_backends.es_orm.errors import RequestRefused
from tenant_router.orm_backends.es_orm.references import IndexReferences, allow_only

_VERBS = {"index", "create", "update", "delete"}
_HEADER_KEYS = {
    "index",
    "allow_no_indices",
    "allow_partial_search_results",
    "expand_wildcards",
    "ignore_throttled",
    "ignore_unavailable",
    "preference",
    "request_cache",
    "routing",
    "search_type",
}


def bulk(body: Any, refs: IndexReferences) -> list[Any]:
    """Confine the index that each action names. What the documents hold is the application's own data."""
    confined, lines = list[Any](), _lines(body)
    for line in lines:
        if line in ("", b""):
            continue  # the server skips it, too
        verb, about = _action(line, refs)
        confined.append({verb: about})
        if verb != "delete":
            confined.append(refs.line(_next(lines, "a bulk action without its document")))
    return confined


def _action(line: Any, refs: IndexReferences) -> tuple[str, dict[str, Any]]:
    """Verb and header of an action. What stands there instead may be a document: nothing of it is told."""
    action = line if type(line) is dict else refs.plain(line)
    verb = next(iter(action)) if type(action) is dict and len(action) == 1 else None
    if type(verb) is not str or verb not in _VERBS:
        raise RequestRefused(f"a bulk action is an object with exactly one of the keys {', '.join(sorted(_VERBS))}")
    about = action[verb]
    if type(about) is not dict or any(type(key) is not str for key in about):
        about = refs.plain(about)
    if type(about) is not dict:
        raise RequestRefused("what a bulk action says is an object")
    return verb, {**about, "_index": refs.reference(about["_index"])} if "_index" in about else about


def msearch(body: Any, refs: IndexReferences, all_indices: bool = False) -> list[Any]:
    """Confine the header and the query of each search; ``all_indices``: the path names no index for them."""
    confined, lines = list[Any](), _lines(body)
    for line in lines:
        header = allow_only({} if line in ("", b"") else refs.plain(line), _HEADER_KEYS, "the header of a search")
        search = refs.plain(_next(lines, "a header without its search"))
        allow_only(search, _AnyButPit(), "a search in msearch")
        confined += [_header(header, refs, all_indices), refs.confine(search)]
    return confined


class _AnyButPit:
    """All keys but "pit": a point in time stands for the index that a header gives."""

    def __contains__(self, key: object) -> bool:
        return key != "pit"


def _header(header: dict[str, Any], refs: IndexReferences, all_indices: bool) -> dict[str, Any]:
    index = header.get("index")
    others = {key: value for key, value in header.items() if key != "index"}
    if index is not None and index not in ("", []):
        return {**others, "index": refs.reference(index)}
    return {**others, "index": refs.names.all_indices} if all_indices else others


def _lines(body: Any) -> Iterator[Any]:
    if isinstance(body, str | bytes):
        body = [body]
    if isinstance(body, Mapping) or not isinstance(body, Iterable):
        raise RequestRefused("lines are expected: a list, or what yields one after the other")
    for element in body:
        yield from _split(element)


def _split(element: Any) -> list[Any]:
    if isinstance(element, bytes):
        return element.removesuffix(b"\n").split(b"\n")
    if isinstance(element, str):
        return element.removesuffix("\n").split("\n")
    return [element]


def _next(lines: Iterator[Any], otherwise: str) -> Any:
    for line in lines:
        return line
    raise RequestRefused(otherwise)
