"""Confines the index names inside a request body: in queries, mappings and what surrounds scripts."""

from __future__ import annotations

import json
from collections.abc import Callable, Container
from typing import Any

from tenant_router.orm_backends.es_orm.errors import RequestRefused
from tenant_router.orm_backends.es_orm.index_names import IndexNames
from tenant_router.orm_backends.es_orm.signed_ids import SignedIds

_SCALARS = (str, int, float, bool, type(None))
_TERM_KEYS = ("value", "wildcard", "prefix", "query")  # of a query on the field _index
_LOOKUP_KEYS = {"index", "id", "path"}  # of a terms lookup: the server wants all three
_DIRECTIONS = ("asc", "desc")
_SCRIPTS = (
    "script",
    "init_script",
    "map_script",
    "combine_script",
    "reduce_script",
    "minimum_should_match_script",
    "scripted_metric",
)
# Where a query names a shape by its id alone, the server looks into this index (AbstractGeometryQueryBuilder).
_SHAPES = "shapes"


class IndexReferences:
    """Finds the references to indices in a body, and confines them to the tenant.

    Only what Elasticsearch reads as a reference is touched, wherever it stands: names that a user
    chooses (of fields, of aggregations) must neither hide a reference nor look like one. A reference
    is text or a list of texts: the server would read a number or ``true`` as a name, too, and so
    everything else is refused.

    ``names`` and ``signed_ids`` are the tenant's; ``dumps`` is the client's serializer, for objects
    (of ``elasticsearch.dsl``, dates) that are not JSON yet: what they become in JSON is what counts.
    """

    __slots__ = ("_dumps", "names", "signed_ids")

    def __init__(self, names: IndexNames, signed_ids: SignedIds, dumps: Callable[[Any], bytes]) -> None:
        self.names, self.signed_ids, self._dumps = names, signed_ids, dumps

    def plain(self, body: Any) -> Any:
        """A body as the server reads it: of JSON's own types alone. Raises ``RequestRefused`` for what is no JSON."""
        return self.read(body) if isinstance(body, str | bytes) else self._plain(body)

    def read(self, body: Any) -> Any:
        """A body that comes as text is read, another one comes back as it is."""
        if not isinstance(body, str | bytes):
            return body
        try:
            return json.loads(body)
        except ValueError:
            raise RequestRefused("the body is no JSON text") from None

    def line(self, document: Any) -> bytes | str:
        """A document as the one line that it must be in a body of lines."""
        text = document if isinstance(document, str | bytes) else self._dumps(document)
        broken = b"\n" in text if isinstance(text, bytes) else "\n" in text
        if broken or not text:
            raise RequestRefused("a document is empty, or the client's serializer writes it in several lines")
        return text

    def confine(self, node: Any) -> Any:
        """A copy of ``node`` in which every reference to an index stays inside the tenant."""
        kind = type(node)
        if kind is dict:
            return self._object(node)
        if kind is list:
            return [self.confine(item) for item in node]
        return node if kind in _SCALARS else self.confine(self._plain(node))

    def reference(self, value: Any) -> Any:
        """A name, a list with commas or a list of names. Raises ``RequestRefused`` for everything else."""
        return self.names.prefixed_value(self._level(value))

    # --- inside ---

    def _plain(self, node: Any) -> Any:
        # In a list: the serializers send text as it is, as a body that is written already.
        return json.loads(self._dumps([node]))[0]

    def _level(self, value: Any) -> Any:
        """``value`` with JSON's own types at its surface: objects may be other things in JSON than they look."""
        kind = type(value)
        if kind is dict:
            return value if all(type(key) is str for key in value) else self._plain(value)
        return value if kind is list or kind in _SCALARS else self._plain(value)

    def _object(self, node: dict[str, Any]) -> dict[str, Any]:
        confined = {}
        for key, value in node.items():
            if type(key) is not str:
                return self._object(self._plain(node))
            special = _SPECIAL.get(key)
            confined[key] = self.confine(value) if special is None else special(self, value)
        if "target_index" in confined and "type" in confined:  # a runtime field of the type lookup
            self._refer(confined, "target_index", node["target_index"])
        return confined

    def _refer(self, confined: dict[str, Any], key: str, value: Any) -> None:
        """``value``, under ``key``, is a reference, unless it is an object: then ``key`` is the name of a field."""
        if type(confined[key]) is not dict:
            confined[key] = self.reference(value)

    def _own_index(self, value: Any) -> Any:
        """``_index``: of a document to fetch, or the field of that name in a query."""
        value = self._level(value)
        if type(value) is not dict:
            return self.reference(value)
        confined = self._object(value)
        for key in _TERM_KEYS:
            if key in confined:
                self._refer(confined, key, value[key])
        return confined

    def _terms(self, value: Any) -> Any:
        """``terms``: the values of a field may be in a document."""
        value = self._level(value)
        confined = self.confine(value)
        for field, given in value.items() if type(value) is dict else ():
            given = self._level(given)
            if type(given) is dict and given.keys() >= _LOOKUP_KEYS:
                confined[field] = {**confined[field], "index": self.reference(given["index"])}
        return confined

    def _indexed_shape(self, value: Any) -> Any:
        value = self._level(value)
        return self._fetched({"index": _SHAPES, **value} if type(value) is dict and "id" in value else value)

    def _fetched(self, value: Any) -> Any:
        """``indexed_shape`` and ``percolate``: what they fetch is in ``index``, if they name it by its ``id``."""
        value = self._level(value)
        confined = self.confine(value)
        if type(value) is dict and "index" in value and ("id" in value or isinstance(value["index"], str)):
            confined["index"] = self.reference(value["index"])
        return confined

    def _sort(self, value: Any) -> Any:
        """``sort``: beside ``_index`` stands a direction."""
        value = self._level(value)
        if type(value) is list:
            return [self._sort(item) for item in value]
        confined = self.confine(self._without_direction(value))
        return {key: confined.get(key, value[key]) for key in value} if type(value) is dict else confined

    def _without_direction(self, value: Any) -> Any:
        directed = type(value) is dict and "_index" in value and "_id" not in value
        if not directed or self._level(value["_index"]) not in _DIRECTIONS:
            return value
        return {key: below for key, below in value.items() if key != "_index"}

    def _script(self, value: Any) -> Any:
        """A script, whose ``params`` are the application's own."""
        value = self._level(value)
        if type(value) is not dict or "params" not in value or not _is_script(value):
            return self.confine(value)
        confined = self.confine({key: below for key, below in value.items() if key != "params"})
        return {**confined, "params": self._plain(value["params"])}

    def _pit(self, value: Any) -> Any:
        value = self._level(value)
        if type(value) is dict and "id" in value and "path" not in value:  # with one: a terms lookup of a field
            return {**value, "id": self.signed_ids.unsign("pit", self._level(value["id"]))}
        return self.confine(value)

    def _boosts(self, value: Any) -> Any:
        value = self._level(value)
        if type(value) is dict:
            return {self.names.prefixed(name): boost for name, boost in value.items()}
        return [self._boosts(item) for item in value] if type(value) is list else value

    def _wrapper(self, value: Any) -> Any:
        value = self._level(value)
        if type(value) is dict and "query" in value:
            raise RequestRefused("a wrapper query hides its content: give the query itself")
        return self.confine(value)

    def _collate(self, value: Any) -> Any:
        value = self._level(value)
        if type(value) is dict:
            raise RequestRefused("'collate' of a suggester is a query made by the server, which cannot be seen here")
        return self.confine(value)


def _is_script(value: dict[str, Any]) -> bool:
    return "map_script" in value or any(type(value.get(key)) is str for key in ("source", "id"))


_SPECIAL: dict[str, Callable[[IndexReferences, Any], Any]] = {
    "_index": IndexReferences._own_index,
    "terms": IndexReferences._terms,
    "indexed_shape": IndexReferences._indexed_shape,
    "percolate": IndexReferences._fetched,
    "indices_boost": IndexReferences._boosts,
    "sort": IndexReferences._sort,
    "pit": IndexReferences._pit,
    "wrapper": IndexReferences._wrapper,
    "collate": IndexReferences._collate,
    **dict.fromkeys(_SCRIPTS, IndexReferences._script),
}


def allow_only(node: Any, keys: Container[str], what: str) -> dict[str, Any]:
    """``node``, which must be an object with none but these keys; else ``RequestRefused``."""
    if not isinstance(node, dict):
        raise RequestRefused(f"{what}: an object is expected")
    unknown = [key for key in node if key not in keys]
    if unknown:
        raise RequestRefused(f"{what}: {str(unknown[0])[:80]!r} is not available to a tenant")
    return node
