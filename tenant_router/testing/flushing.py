"""Empties the test databases that have no transactions after each test, whatever its class."""

from __future__ import annotations

import sys
import unittest
from collections.abc import Callable
from typing import Any

_case: Any = unittest.TestCase  # each test passes its run(), be it one of Django's classes or an asynchronous one
_originals: list[Any] = []


def install(flush: Callable[[], None]) -> None:
    """Have ``flush()`` called after each test of a test case; idempotent."""
    if _originals:
        return
    original = _case.run
    _originals.append(original)

    def run(self: Any, result: Any = None) -> Any:
        found = original(self, result)
        try:
            flush()
        except Exception:  # the run goes on, and this test has failed
            if found is None:
                raise
            found.addError(self, sys.exc_info())
        return found

    _case.run = run


def uninstall() -> None:
    """Undo :func:`install`."""
    while _originals:
        _case.run = _originals.pop()
