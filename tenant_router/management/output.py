"""What a command says, to whom may not listen: a stream that is closed, goes away, is full, or has few letters."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TextIO

from django.core.management.base import OutputWrapper


class Output(OutputWrapper):
    """A stream that a command writes to and does not depend on: what it does, it does whether anybody reads or not.

    ``out``: ``None`` for one that was closed before Python started. ``lost``: why not all could be written.
    """

    def __init__(self, out: TextIO | None) -> None:
        super().__init__(io.StringIO() if out is None else out)
        self.lost: OSError | ValueError | None = None

    def write(  # type: ignore[override]  # as Django's
        self, msg: str = "", style_func: Callable[[str], str] | None = None, ending: str | None = None
    ) -> None:
        """As Django's, at once; nothing more once something was lost."""
        if self.lost is not None:
            return
        try:
            super().write(encodable(msg, self._out), style_func, ending)
            self.flush()
        except (OSError, ValueError) as error:  # ValueError: it was closed since
            self.lost = error

    def forget(self) -> None:
        """At the end of the process: what Python still holds for a stream that is gone is written nowhere."""
        if self.lost is not None:
            with suppress(OSError, ValueError):  # a stream without a descriptor, or closed
                os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())


def encodable(text: str, stream: Any) -> str:
    """``text`` with escapes for the letters that ``stream`` has not."""
    encoding = getattr(stream, "encoding", None)
    return text.encode(encoding, "backslashreplace").decode(encoding) if encoding else text
