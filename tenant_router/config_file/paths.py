"""Formats JSON paths, keys and types for messages, without showing any value."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

Keys: TypeAlias = tuple[str | int, ...]
Fault: TypeAlias = tuple[Keys, str]

_MAX_SHOWN = 80  # characters of one key
_MAX_LISTED = 12  # names in one listing
_KINDS: dict[type, str] = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}


def render(keys: Keys, root: str = "$") -> str:
    """The JSON path of ``keys`` below ``root``, e.g. ``$.tenant_config['a.test.com'].svc``."""
    return (root + "".join(map(_step, keys))).removeprefix(".")


def _step(key: str | int) -> str:
    if isinstance(key, str) and len(key) <= _MAX_SHOWN and key.isascii() and key.isidentifier():
        return f".{key}"
    return f"[{shown(key)}]"


def shown(key: object) -> str:
    """``key`` quoted, with unprintable characters escaped, and cut when it is very long."""
    if isinstance(key, str) and len(key) > _MAX_SHOWN:
        return repr(f"{key[: _MAX_SHOWN - 3]}...")
    return repr(key)


def listing(names: Iterable[str]) -> str:
    """``names`` quoted and sorted; ``none`` when there are none."""
    ordered = sorted(names)
    more = f" and {len(ordered) - _MAX_LISTED} more" if len(ordered) > _MAX_LISTED else ""
    return ", ".join(map(shown, ordered[:_MAX_LISTED])) + more or "none"


def kind(value: object) -> str:
    """What JSON calls a value of this type."""
    return next((name for cls, name in _KINDS.items() if isinstance(value, cls)), "a number")
