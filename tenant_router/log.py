"""Logging: which tenant a line is about, and that no handler stops what it is told of."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping
from typing import Any

from tenant_router import context as _context
from tenant_router.secrets import MASK, Secret, SecretText, is_secret_name, masked_text, scrubbed


class TenantFilter(logging.Filter):
    """Gives every record a ``tenant_id``: of the bound tenant, else ``"-"``."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the attribute; nothing is ever filtered out."""
        if not hasattr(record, "tenant_id"):
            record.tenant_id = _context.current_id() or "-"
        return True


class _Turns:
    """One thread at a time has a handler write, and none does while the process forks.

    A child finds the lock of a buffered stream as it was: where a thread of its parent was writing just then, the child
    would wait for ever (CPython renews the locks of handlers, Lib/logging/__init__.py, and not those of streams).
    """

    PATIENCE = 1.0  # seconds: who forks does not wait for ever for a handler that hangs

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._forks = threading.local()

    def before_fork(self) -> None:
        self._forks.waited = self.lock.acquire(timeout=self.PATIENCE)

    def after_in_parent(self) -> None:
        if self._forks.waited:
            self.lock.release()

    def after_in_child(self) -> None:
        self.lock = threading.RLock()


_turns = _Turns()
os.register_at_fork(
    before=_turns.before_fork, after_in_parent=_turns.after_in_parent, after_in_child=_turns.after_in_child
)


class _OwnLogger(logging.Logger):
    """A logger whose handlers fail alone: one that writes to a tenant's database does so where none is bound."""

    def callHandlers(self, record: logging.LogRecord) -> None:
        """As ``Logger.callHandlers``; what a handler raises is reported as errors of handlers are."""
        if not self.hasHandlers():
            return super().callHandlers(record)
        source: logging.Logger | None = self
        while source is not None:
            for handler in source.handlers:
                if record.levelno >= handler.level:
                    _handle(handler, record)
            source = source.parent if source.propagate else None
        return None


def _handle(handler: logging.Handler, record: logging.LogRecord) -> None:
    with _turns.lock:
        try:
            handler.handle(record)
        except Exception:
            handler.handleError(record)


def keep_running() -> None:
    """Have no handler's error reach the code of this package, which reads the store in a thread of its own."""
    package = __name__.partition(".")[0]
    logging.getLogger(package)
    for name, found in list(logging.Logger.manager.loggerDict.items()):
        if name.partition(".")[0] == package and type(found) is logging.Logger:
            found.__class__ = _OwnLogger


def redact(value: Any) -> Any:
    """A copy of ``value`` to be shown: secrets are masked, by their key's name and in URLs of whatever spelling."""
    if isinstance(value, Mapping):
        return {key: MASK if is_secret_name(key) and item else redact(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [redact(item) for item in value]
    if isinstance(value, Secret):
        return redact(SecretText(value.reveal())) if isinstance(value.reveal(), str) else MASK
    if isinstance(value, SecretText):
        return masked_text(value)
    return scrubbed(value) if isinstance(value, str) else value
