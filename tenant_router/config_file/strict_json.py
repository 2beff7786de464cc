"""A strict JSON parser: no repeated keys, no NaN, no number too large, bounded depth."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from math import isfinite
from typing import Any

from tenant_router.config_file.paths import Fault, Keys, shown
from tenant_router.exceptions import RecordInvalid

MAX_DEPTH = 64  # objects and lists within each other; a configuration needs about 10
_MAX_DIGITS = 300  # Python itself refuses to read a few thousand
_TOKENS = r'(?s)"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]'


def loads(data: str | bytes) -> tuple[Any, list[Fault]]:
    """The document in ``data``, and what is wrong with it though it can be read.

    Raises :class:`~tenant_router.exceptions.RecordInvalid` when it cannot be read. A byte order
    mark is tolerated; bytes may be UTF-8, UTF-16 or UTF-32.
    """
    text = _text(data)
    if not text.strip():
        raise _refused('the file is empty; the least it can hold is {"mapping_metadata": {}}')
    reader = _Reader()
    document = _decoded(text, reader)
    return document, list(_flaws(document)) if reader.flawed else []


class _InvalidNumber(float):
    """Stands for a number that JSON or Python does not have."""


class _Repeated(dict[str, Any]):
    """An object whose source names a key twice; ``pairs`` is all it said."""

    pairs: list[tuple[str, Any]]


class _Reader:
    """The hooks of one decoding. They leave marks in the document, since they know no paths."""

    def __init__(self) -> None:
        self.flawed = False

    def decoder(self) -> json.JSONDecoder:
        return json.JSONDecoder(
            object_pairs_hook=self._object, parse_int=self._int, parse_float=self._float, parse_constant=self._odd
        )

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        built = dict(pairs)
        if len(built) == len(pairs):
            return built
        self.flawed = True
        repeated = _Repeated(built)
        repeated.pairs = pairs
        return repeated

    def _int(self, digits: str) -> int | float:
        return int(digits) if len(digits) <= _MAX_DIGITS else self._odd(digits)

    def _float(self, digits: str) -> float:
        value = float(digits)
        return value if isfinite(value) else self._odd(digits)

    def _odd(self, _: str) -> _InvalidNumber:
        self.flawed = True
        return _InvalidNumber("nan")


def _text(data: str | bytes) -> str:
    if isinstance(data, str):
        return data.removeprefix("\ufeff")
    encoding = json.detect_encoding(data)
    try:
        return data.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        where = error.start + 1
    raise _refused(f"byte {where} is no text in {encoding.removesuffix('-sig').upper()}: save the file as UTF-8")


def _decoded(text: str, reader: _Reader) -> Any:
    # Raised outside the except clauses: the decoder's error holds the whole text, secrets included.
    try:
        document = reader.decoder().decode(text)
        what = f"nested too deeply {_deep_place(text)}" if _too_deep(document) else ""
    except json.JSONDecodeError as error:
        what = _syntax(error)
    except RecursionError:
        what = f"nested too deeply {_deep_place(text)}"
    if what:
        raise _refused(what)
    return document


def _syntax(error: json.JSONDecodeError) -> str:
    where = f"at line {error.lineno}, column {error.colno}"
    if error.msg == "Extra data":
        return f"the JSON document ends before the file does: remove what begins {where}"
    what = error.msg.removesuffix(" at").removesuffix(" starting").rstrip(": ")
    return f"not valid JSON {where}: {what}"


def _too_deep(document: Any) -> bool:
    level: list[Any] = [[document]]
    for _ in range(MAX_DEPTH + 1):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, (dict, list))
        ]
        if not level:
            return False
    return True


def _deep_place(text: str) -> str:
    place = next(_deep_places(text), len(text))
    line, column = text.count("\n", 0, place) + 1, place - text.rfind("\n", 0, place)
    return f"at line {line}, column {column}: at most {MAX_DEPTH} levels are allowed"


def _deep_places(text: str) -> Iterator[int]:
    depth = 0
    for token in re.finditer(_TOKENS, text):
        depth += (token[0] in "[{") - (token[0] in "]}")
        if depth > MAX_DEPTH:
            yield token.start()


def _flaws(document: Any) -> Iterator[Fault]:
    """Walks without recursion: of two values of one key, the first was not measured for depth."""
    pending: list[tuple[Keys, Any]] = [((), document)]
    while pending:
        keys, node = pending.pop()
        if isinstance(node, _InvalidNumber):
            yield keys, "NaN, Infinity and numbers beyond Python's range are not allowed: write a plain number"
        if isinstance(node, _Repeated):
            yield from _repeats(keys, node)
        pending.extend(((*keys, key), value) for key, value in _children(node))


def _repeats(keys: Keys, node: _Repeated) -> Iterator[Fault]:
    for key, times in Counter(key for key, _ in node.pairs).items():
        if times > 1:
            yield (*keys, key), f"key {shown(key)} is given {times} times: keep one of them"


def _children(node: Any) -> list[tuple[str | int, Any]]:
    if isinstance(node, _Repeated):
        return list(node.pairs)
    if isinstance(node, dict):
        return list(node.items())
    return list(enumerate(node)) if isinstance(node, list) else []


def _refused(what: str) -> RecordInvalid:
    return RecordInvalid([("$", what)])
