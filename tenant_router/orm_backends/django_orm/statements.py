"""Whether a connection does something just now: it is nobody's to close in the middle of that."""

from __future__ import annotations

from typing import Any

from django.db.utils import DatabaseErrorWrapper


class Running(DatabaseErrorWrapper):
    """Django's translator of errors, around whatever a connection does; ``running`` says whether it does something.

    ``DatabaseErrorWrapper.__enter__`` does nothing (django/db/utils.py), so this adds no call.
    """

    running = 0

    def __enter__(self) -> None:
        self.running += 1

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self.running -= 1
        if kind is not None:
            super().__exit__(kind, error, trace)
