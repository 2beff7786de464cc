"""Confines a tenant's requests to its own indices: names get the tenant's prefix, and lose it in the answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, quote, unquote

from tenant_router.orm_backends.es_orm import routes
from tenant_router.orm_backends.es_orm.errors import RequestRefused
from tenant_router.orm_backends.es_orm.index_names import IndexNames
from tenant_router.orm_backends.es_orm.references import IndexReferences
from tenant_router.orm_backends.es_orm.request_bodies import CONFINE
from tenant_router.orm_backends.es_orm.response_bodies import REWRITE, Rewrite, error
from tenant_router.orm_backends.es_orm.signed_ids import SignedIds

# Bodies are confined as JSON: the server must read them as JSON, too.
_CONTENT_TYPES = frozenset(
    f"application/{vendor}{kind}" for vendor in ("", "vnd.elasticsearch+") for kind in ("json", "x-ndjson")
)
# With these a caller could end the request before its body does, and begin another one that nobody has seen.
_FRAMING = frozenset({"content-length", "content-encoding", "transfer-encoding", "connection", "upgrade", "trailer"})


class Confined(NamedTuple):
    """A request that may be sent, and how its answer is rewritten."""

    target: str
    body: Any
    rewrite: Rewrite


class Confinement:
    """Confines the requests of one tenant at one alias."""

    __slots__ = ("names", "signed_ids")

    def __init__(self, tenant_id: str, alias: str, prefix: str) -> None:
        self.names, self.signed_ids = IndexNames(prefix), SignedIds(tenant_id, alias)

    def request(self, method: str, target: str, body: Any, dumps: Callable[[Any], bytes]) -> Confined:
        """Confine a request. ``dumps``: the client's serializer. Raises ``RequestRefused``, ``TenantMismatch``."""
        path, _, query = target.partition("?")
        try:
            return self._confined(method, path, query, body, dumps)
        except (RequestRefused, UnicodeError) as refused:
            raise RequestRefused(f"{method} {_shown(path)} is refused to a tenant: {_said(refused)}") from None
        except RecursionError:
            raise RequestRefused(f"{method} {_shown(path)} is refused to a tenant: its body is too deep") from None

    def answer(self, confined: Confined, status: int, body: Any) -> Any:
        """Rewrite an answer: index names without the prefix, ids signed."""
        return (error if status >= 400 else confined.rewrite)(body, self.names, self.signed_ids)

    def _confined(self, method: str, path: str, query: str, body: Any, dumps: Callable[[Any], bytes]) -> Confined:
        found = routes.find(method, tuple(map(_segment, path.removeprefix("/").split("/"))) if path != "/" else ())
        if found is None:
            raise RequestRefused("it is not among those that can be kept inside a tenant")
        route, parts = found
        confined = CONFINE[route.body](body, IndexReferences(self.names, self.signed_ids, dumps))
        by_pit = route.body == "search" and isinstance(confined, dict) and "pit" in confined
        sent = "/" + "/".join(filter(None, (self._part(*part, by_pit) for part in parts)))
        return Confined(sent + _parameters(query), confined, REWRITE[route.answer])

    def _part(self, part: str, segment: str | None, by_pit: bool) -> str:
        if segment is None:  # a point in time stands for its indices, and none may be named beside it
            return "" if by_pit else self.names.all_indices
        if part in ("{index}", "{name}"):
            return quote(self.names.prefixed_expression(segment), safe="*,")
        if not part.startswith("{"):
            return part
        if part == "{free}":
            return quote(_harmless(segment), safe="*,")
        kind = part[1:-1]
        return quote(",".join(self.signed_ids.unsign_all(kind, segment)), safe=",")


def check_headers(headers: Mapping[str, Any]) -> None:
    """Raise ``RequestRefused`` for headers by which the server would read another body than the one confined here."""
    for name, value in headers.items():
        name = name.strip().lower()
        if name in _FRAMING:
            raise RequestRefused(f"the header {name!r} is not available to a tenant")
        if name == "content-type" and str(value).partition(";")[0].strip().lower() not in _CONTENT_TYPES:
            raise RequestRefused("a tenant's bodies are JSON: give no other content type")


def _shown(path: str) -> str:
    """A path for people: the API that it asks for, not the names and ids, which may be the values of documents."""
    return "/".join(part if not part or part.startswith("_") else "..." for part in path[:200].split("/"))


def _said(refused: Exception) -> str:
    return "it holds text that is no Unicode" if isinstance(refused, UnicodeError) else str(refused)


def _segment(quoted: str) -> str:
    if not quoted:
        raise RequestRefused("its path has an empty part")
    return unquote(quoted, errors="strict")


def _harmless(segment: str) -> str:
    """An id or the like; what stands between client and server must not take it for another path."""
    if any(piece in (".", "..") for piece in segment.replace("\\", "/").split("/")):
        raise RequestRefused("'.' and '..' would change its path")
    return segment


def _parameters(query: str) -> str:
    if not query:
        return ""
    given = parse_qsl(query, keep_blank_values=True, strict_parsing=True)
    for name, _ in given:
        if name not in routes.PARAMETERS:
            raise RequestRefused(f"the parameter {name[:80]!r} is not available to a tenant")
    if len({name for name, _ in given}) < len(given):
        raise RequestRefused("a parameter is given twice")
    return "?" + "&".join(f"{name}={quote(value, safe=',*')}" for name, value in given)
