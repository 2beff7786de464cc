"""Confines the index names inside a request body: in queries, mappings and what surrounds scripts."""

from __future__ import annotations

import json
from collections.abc import Callable, Container
from typing import Any

from tenant_router.orm_backends.es_orm.errors import RequestRefused
from tenant_router.orm_backends.es_orm.index_names import IndexNames
from tenant_router.orm_backends.es_orm.signed_ids import SignedIds

_SCALARS = (str, int, float, bool, type(None))
_TERM_KEYS = ("value", "wildcard", "prefix")  # of a query on the field _index


class IndexReferences:
    """Finds the references to indices in a body, and confines them to the tenant.

    Only what Elasticsearch reads as a reference is touched, wherever it stands: names that a user
    chooses (of fields, of aggregations) must neither hide a reference nor look like one.

    ``names`` and ``signed_ids`` are the tenant's; ``dumps`` is the client's serializer, for objects
    (of ``elasticsearch.dsl``, dates) that are not JSON yet.
    """

    __slots__ = ("_dumps", "names", "signed_ids")

    def __init__(self, names: IndexNames, signed_ids: SignedIds, dumps: Callable[[Any], bytes]) -> None:
        self.names, self.signed_ids, self._dumps = names, signed_ids, dumps

    def plain(self, body: Any) -> Any:
        """A body as JSON types; text is read. Raises ``RequestRefused`` for what is no JSON."""
        if isinstance(body, str | bytes):
            try:
                return json.loads(body)
            except ValueError:
                raise RequestRefused("the body is no JSON text") from None
        return body if type(body) in (dict, list) else json.loads(self._dumps(body))

    def confine(self, node: Any) -> Any:
        """A copy of ``node`` in which every reference to an index stays inside the tenant."""
        kind = type(node)
        if kind is dict:
            return self._object(node)
        if kind is list:
            return [self.confine(item) for item in node]
        if kind in _SCALARS:
            return node
        plain = json.loads(self._dumps(node))
        return self.confine(plain)

    def _object(self, node: dict[str, Any]) -> dict[str, Any]:
        confined = {key: self._member(key, value) for key, value in node.items()}
        if "index" in node and "path" in node:  # a terms lookup; Elasticsearch wants both
            confined["index"] = self._looked_up(node["index"])
        return confined

    def _member(self, key: str, value: Any) -> Any:
        special = _SPECIAL.get(key)
        return self.confine(value) if special is None else special(self, value)

    def _looked_up(self, value: Any) -> Any:
        return self.names.prefixed_value(value) if isinstance(value, str | list) else self.confine(value)

    def _own_index(self, value: Any) -> Any:
        """``_index``: of a document to fetch, or the field of that name in a query."""
        if isinstance(value, dict):
            return {k: self.names.prefixed_value(v) if k in _TERM_KEYS else self.confine(v) for k, v in value.items()}
        return self._looked_up(value)

    def _holder(self, value: Any) -> Any:
        """``indexed_shape`` and ``percolate``: what they fetch is in ``index``."""
        confined = self.confine(value)
        if isinstance(confined, dict) and "index" in confined:
            confined["index"] = self._looked_up(value["index"])
        return confined

    def _pit(self, value: Any) -> Any:
        if isinstance(value, dict) and "id" in value and "path" not in value:  # with one: a terms lookup of a field
            return {**value, "id": self.signed_ids.unsign("pit", value["id"])}
        return self.confine(value)

    def _boosts(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {self.names.prefixed(name): boost for name, boost in value.items()}
        return [self._boosts(item) for item in value] if isinstance(value, list) else self.confine(value)

    def _wrapper(self, value: Any) -> Any:
        if isinstance(value, dict) and "query" in value:
            raise RequestRefused("a wrapper query hides its content: give the query itself")
        return self.confine(value)

    def _collate(self, value: Any) -> Any:
        if isinstance(value, dict):
            raise RequestRefused("'collate' of a suggester is a query made by the server, which cannot be seen here")
        return value


_SPECIAL: dict[str, Callable[[IndexReferences, Any], Any]] = {
    "_index": IndexReferences._own_index,
    "target_index": IndexReferences._looked_up,  # of a runtime field of the type lookup
    "indexed_shape": IndexReferences._holder,
    "percolate": IndexReferences._holder,
    "indices_boost": IndexReferences._boosts,
    "pit": IndexReferences._pit,
    "wrapper": IndexReferences._wrapper,
    "collate": IndexReferences._collate,
}


def allow_only(node: Any, keys: Container[str], what: str) -> dict[str, Any]:
    """``node``, which must be an object with none but these keys; else ``RequestRefused``."""
    if not isinstance(node, dict):
        raise RequestRefused(f"{what}: an object is expected")
    unknown = [key for key in node if key not in keys]
    if unknown:
        raise RequestRefused(f"{what}: {unknown[0]!r} is not available to a tenant")
    return node
