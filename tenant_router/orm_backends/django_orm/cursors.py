"""Cursors: what drivers can do beyond ``execute``, refused under another tenant as ``execute`` is."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.db.backends.utils import CursorWrapper

from tenant_router import context as _context
from tenant_router.exceptions import TenantMismatch

# ``CursorWrapper.__getattr__`` (django/db/backends/utils.py) hands these to the driver without a look at the
# connection: psycopg's, psycopg2's, SQLite's and Oracle's own ways to send something.
_SENDING = ("copy", "stream", "copy_expert", "copy_from", "copy_to", "executescript", "callfunc", "scroll")

Replace = Callable[[Any, str, Any], None]


def install(replace: Replace) -> None:
    """Guard cursors; ``replace`` sets an attribute and knows how to undo it."""
    for name in _SENDING:
        replace(CursorWrapper, name, _Sending(name))


class _Sending:
    """A method of a driver's cursor that sends something to the database."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, cursor: Any, owner: type) -> Any:
        if cursor is None:
            return self
        method = CursorWrapper.__getattr__(cursor, self._name)

        @wraps(method)
        def send(*args: Any, **kwargs: Any) -> Any:
            refuse_kept(cursor.db)
            return method(*args, **kwargs)

        return send


def refuse_kept(connection: Any) -> None:
    """Raise ``TenantMismatch`` if ``connection`` is of another tenant than the bound one."""
    bound, database = _context.stack.get(), getattr(connection, "database", None)
    if bound and database is not None and bound[-1].id != database.tenant_id:
        raise TenantMismatch(
            f"a cursor or connection of {connection.alias!r} is used while tenant {bound[-1].id!r} is bound"
        )
