"""What a serializer is, and the plain data that all of them are limited to."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Set
from typing import Any, ClassVar

from tenant_router.exceptions import SerializerError

MAX_SIZE = 256 * 1024  # bytes of one serialized record
MAX_NODES = 100_000  # values and keys of one record; a shared one counts each time that it is referred to
MAX_DEPTH = 64  # containers inside one another
_CONTAINERS = frozenset({dict, list, tuple})
_TEXT = frozenset({str})


class Serializer(ABC):
    """Turns a record into bytes and back. What ``dumps`` returns, ``loads`` accepts.

    Every failure of either is a :class:`~tenant_router.exceptions.SerializerError`; its
    message tells a place or a type and never a value, since records hold passwords.
    """

    name: ClassVar[str]
    """What the envelope of a stored record calls this format: lower-case letters, digits, ``-`` and ``_``."""

    @abstractmethod
    def dumps(self, record: dict[str, Any]) -> bytes:
        """The bytes of ``record``."""

    @abstractmethod
    def loads(self, data: bytes) -> dict[str, Any]:
        """The record that ``data`` stands for; ``data`` may come from anybody."""

    def holds(self, data: bytes, record: dict[str, Any]) -> bool:
        """Whether ``data`` stands for ``record``, which :meth:`dumps` accepts."""
        try:
            return self.loads(data) == record
        except SerializerError:
            return False


def check_size(data: bytes, max_size: int) -> bytes:
    """Return ``data``, or raise ``SerializerError`` when it has more than ``max_size`` bytes."""
    if len(data) > max_size:
        raise SerializerError(f"a serialized record of {len(data)} bytes is refused; {max_size} are allowed")
    return data


def check_plain(record: object, types: Set[type]) -> dict[str, Any]:
    """Return ``record`` if it is a dict that holds nothing but ``types`` and string keys.

    The walk is counted and not recursive, so neither a cycle nor references that are shared
    at every level (which stand for 2^n values) can exhaust the process.
    """
    if type(record) is not dict:
        raise SerializerError(f"a record is a dict, not {type(record).__name__}")
    level: list[Any] = [record]
    left = MAX_NODES
    for _ in range(MAX_DEPTH):
        level = _children(level, types, left)
        left -= len(level)
        if not level:
            return record
    raise SerializerError(f"a record may not be nested more than {MAX_DEPTH} levels deep")


def _children(level: list[Any], types: Set[type], limit: int) -> list[Any]:
    """What the containers in ``level`` hold. Each record is looked through, so no value has a step of its own."""
    kinds = {*map(type, level)}
    if not kinds <= types:
        raise SerializerError(f"a record may not hold a {next(kind for kind in kinds if kind not in types).__name__}")
    below: list[Any] = []
    if kinds.isdisjoint(_CONTAINERS):
        return below
    for value in level:
        kind = type(value)
        if kind is dict:
            _check_keys(value)
            below += value.values()
        elif kind in _CONTAINERS:
            below += value
        if len(below) > limit:
            raise SerializerError(f"a record may not hold more than {MAX_NODES} values")
    return below


def _check_keys(value: dict[Any, Any]) -> None:
    if not {*map(type, value)} <= _TEXT:
        raise SerializerError(f"the keys of a record are strings, not {_other_type(value)}")


def _other_type(keys: Iterable[Any]) -> str:
    return next(type(key).__name__ for key in keys if type(key) is not str)
