"""What is printed for one tenant, kept apart from what is printed for others at the same time.

``sys.stdout``, ``sys.stderr`` and ``sys.stdin`` are replaced by ones that ask a context variable whose they are: what
calls ``print()`` for a tenant is caught like what writes to a command's ``self.stdout``, also in threads. What a thread
prints that a command starts by itself goes where it went before. Nothing can be read from a tenant's standard input.
"""

from __future__ import annotations

import io
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TextIO

_NAMES = ("stdin", "stdout", "stderr")
_streams: ContextVar[dict[str, Any] | None] = ContextVar("tenant_router_streams", default=None)


class LineStream(io.TextIOBase):
    """A stream that hands on whole lines: ``emit(line)``, without the line's end."""

    encoding = "utf-8"

    def __init__(self, emit: Callable[[str], None]) -> None:
        self._emit, self._rest = emit, ""
        self.buffer = _Bytes(self)

    def writable(self) -> bool:
        """It is written to."""
        return True

    def write(self, text: str) -> int:
        """Hand on the lines that ``text`` completes."""
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._emit(line)
        return len(text)

    def finish(self) -> None:
        """Hand on the last line, if nobody has ended it."""
        rest, self._rest = self._rest, ""
        if rest:
            self._emit(rest)


class _Bytes(io.RawIOBase):
    """What is written to ``sys.stdout.buffer``, as text."""

    def __init__(self, stream: LineStream) -> None:
        self._stream = stream

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._stream.write(bytes(data).decode("utf-8", "replace"))
        return len(data)


class SharedStream:
    """Stands for a stream called ``name``: the tenant's for which the calling code runs, or else ``own``."""

    def __init__(self, name: str, own: TextIO) -> None:
        self.__dict__.update(_name=name, _own=own)

    def _whose(self) -> Any:
        streams = _streams.get()
        return self._own if streams is None else streams[self._name]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._whose(), name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._whose())


class _Installed:
    """Which standard streams are replaced, and by how many blocks."""

    def __init__(self) -> None:
        self._lock, self._blocks = threading.Lock(), 0
        self._own: dict[str, tuple[Any, SharedStream]] = {}

    def enter(self) -> None:
        with self._lock:
            self._blocks += 1
            if self._blocks == 1:
                for name in _NAMES:
                    own = getattr(sys, name)
                    self._own[name] = own, SharedStream(name, own)
                    setattr(sys, name, self._own[name][1])

    def leave(self) -> None:
        with self._lock:
            self._blocks -= 1
            if not self._blocks:
                for name, (own, shared) in self._own.items():
                    if getattr(sys, name) is shared:  # else somebody else has replaced it since
                        setattr(sys, name, own)
                self._own.clear()


_installed = _Installed()


@contextmanager
def kept_apart() -> Iterator[None]:
    """Replace the standard streams, so that :func:`printing_to` takes effect."""
    _installed.enter()
    try:
        yield
    finally:
        _installed.leave()


@contextmanager
def printing_to(out: TextIO | io.TextIOBase, err: TextIO | io.TextIOBase) -> Iterator[None]:
    """Have what this context prints inside the block go to ``out`` and ``err``, and find nothing to read."""
    with kept_apart():
        token = _streams.set({"stdin": io.StringIO(), "stdout": out, "stderr": err})
        try:
            yield
        finally:
            _streams.reset(token)
