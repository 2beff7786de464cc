"""The ``NAME`` of a SQLite database: a path, ``:memory:``, or a ``file:`` URI as sqlite.org/uri.html has them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import parse_qsl, quote, unquote

from django.conf import settings as django_settings

from tenant_router import allow_lists

_MEMORY = ":memory:"
_PARAMETERS = {"mode": ("ro", "rw", "rwc", "memory"), "cache": ("shared", "private")}


class _Uri(NamedTuple):
    path: str
    query: str

    @property
    def parameters(self) -> dict[str, str]:
        return dict(parse_qsl(self.query, keep_blank_values=True))

    @property
    def in_memory(self) -> bool:
        return self.path in (_MEMORY, "") or self.parameters.get("mode") == "memory"


def absolute(name: str) -> str:
    """``name`` with a relative path made one below ``BASE_DIR``."""
    if name == _MEMORY:
        return name
    uri = _parsed(name)
    if uri is None:
        return _below_base(name)
    if uri.in_memory or os.path.isabs(uri.path):
        return name
    return f"file:{quote(_below_base(uri.path))}" + (f"?{uri.query}" if uri.query else "")


def place(name: str) -> str | None:
    """What tells the database from all others, however it is spelt; ``None`` for one that is one connection's own."""
    uri = _parsed(name)
    if name == _MEMORY or (uri is not None and uri.in_memory):
        # without a name of its own, too: all that say file::memory:?cache=shared have one database
        shared = uri is not None and uri.path and uri.parameters.get("cache") == "shared"
        return f"memory {uri.path}" if uri is not None and shared else None
    return real_path(_below_base(uri.path if uri is not None else name))


def real_path(path: str) -> str:
    """``os.path.realpath``; ``path`` itself where no file can have that name: this is asked of refused records, too."""
    try:
        return os.path.realpath(path)
    except ValueError:  # a zero byte, or what cannot be encoded
        return path


def faults(name: str) -> Iterator[str]:
    """What is wrong with a record's ``NAME``."""
    uri = _parsed(name)
    if uri is None:
        return
    if allow_lists.control(f" {uri.path}"):  # SQLite takes no notice of what follows a %00
        yield "is a URI with a control character in its path"
    for key, value in uri.parameters.items():
        if value not in _PARAMETERS.get(key, ()):
            yield f"is a URI with a parameter other than {', '.join(_PARAMETERS)}"
            return


def _parsed(name: str) -> _Uri | None:
    if not name.startswith("file:"):
        return None
    path, _, query = name[5:].partition("#")[0].partition("?")
    if path.startswith("//"):  # and an authority, which is this machine
        path = "/" + path[2:].partition("/")[2]
    return _Uri(unquote(path), query)


def _below_base(path: str) -> str:
    return os.path.join(getattr(django_settings, "BASE_DIR", "."), path)
