"""What a serializer is, and the plain data that all of them are limited to."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection
from typing import Any, ClassVar

from tenant_router.exceptions import SerializerError

MAX_SIZE = 256 * 1024  # bytes of one serialized record
MAX_NODES = 100_000  # values and keys of one record; a shared one counts each time that it is referred to
MAX_DEPTH = 64  # containers inside one another


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


def check_plain(record: object, types: Collection[type]) -> dict[str, Any]:
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


def _children(level: list[Any], types: Collection[type], limit: int) -> list[Any]:
    below: list[Any] = []
    for value in level:
        if type(value) not in types:
            raise SerializerError(f"a record may not hold a {type(value).__name__}")
        if isinstance(value, dict):
            _check_keys(value)
            below.extend(value.values())
        elif isinstance(value, (list, tuple)):
            below.extend(value)
        if len(below) > limit:
            raise SerializerError(f"a record may not hold more than {MAX_NODES} values")
    return below


def _check_keys(value: dict[Any, Any]) -> None:
    for key in value:
        if type(key) is not str:
            raise SerializerError(f"the keys of a record are strings, not {type(key).__name__}")
