"""Ctrl-C once finishes what runs, twice stops at once, as does a SIGTERM."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


@contextmanager
def finishing_first(first: Callable[[], None]) -> Iterator[None]:
    """Have the first SIGINT inside the block call ``first``; a later one and a SIGTERM raise ``KeyboardInterrupt``.

    Who has a handler of its own keeps it, as does a job of a shell that ignores the signal.
    """
    at_once = signal.default_int_handler

    def handle(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, at_once)
        first()

    with _replaced(signal.SIGINT, at_once, handle), _replaced(signal.SIGTERM, signal.SIG_DFL, at_once):
        yield


@contextmanager
def _replaced(number: signal.Signals, expected: Any, handler: Any) -> Iterator[None]:
    """Have ``handler`` instead of ``expected``, where that is what is there."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(number) != expected:
        yield
        return
    signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, expected)
