"""Ctrl-C once finishes what runs, twice stops at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def finishing_first(first: Callable[[], None]) -> Iterator[None]:
    """Have the first SIGINT inside the block call ``first``; each later one raises ``KeyboardInterrupt``.

    Who has a handler of its own keeps it, as does a job of a shell that ignores the signal.
    """
    python_s = signal.default_int_handler
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) is not python_s:
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, python_s)
        first()

    signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, python_s)
