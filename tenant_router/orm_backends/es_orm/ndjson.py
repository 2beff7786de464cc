"""Bodies of several lines: ``_bulk`` and ``_msearch``.

The lines may come as objects, as text, or as text that holds several lines (the bulk helpers
send text). They are taken apart here exactly as the server would, and sent one by one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tenant_router.orm_backends.es_orm.errors import RequestRefused
from tenant_router.orm_backends.es_orm.references import References, only

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


def bulk(body: Any, to: References) -> list[Any]:
    """Confine the index that each action names. What the documents hold is the application's own data."""
    confined, lines = list[Any](), _lines(body)
    for line in lines:
        if line in ("", b""):
            continue  # the server skips it, too
        action = only(to.plain(line), _VERBS, "a bulk action")
        if len(action) != 1:
            raise RequestRefused("a bulk action has exactly one key")
        verb, about = next(iter(action.items()))
        confined.append({verb: to.confine(about)})
        if verb != "delete":
            confined.append(_next(lines, "a bulk action without its document"))
    return confined


def msearch(body: Any, to: References, everything: bool = False) -> list[Any]:
    """Confine the header and the query of each search; ``everything``: the path names no index for them."""
    confined, lines = list[Any](), _lines(body)
    for line in lines:
        header = only({} if line in ("", b"") else to.plain(line), _HEADER_KEYS, "the header of a search")
        search = only(to.plain(_next(lines, "a header without its search")), _AnyButPit(), "a search in msearch")
        confined += [_header(header, to, everything), to.confine(search)]
    return confined


class _AnyButPit:
    """All keys but "pit": a point in time stands for the index that a header gives."""

    def __contains__(self, key: object) -> bool:
        return key != "pit"


def _header(header: dict[str, Any], to: References, everything: bool) -> dict[str, Any]:
    index = header.get("index")
    others = {key: value for key, value in header.items() if key != "index"}
    if index:
        return {**others, "index": to.names.value(index)}
    return {**others, "index": to.names.everything} if everything else others


def _lines(body: Any) -> Iterator[Any]:
    if isinstance(body, str | bytes):
        body = [body]
    if not isinstance(body, list | tuple):
        raise RequestRefused("a list of lines is expected")
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
