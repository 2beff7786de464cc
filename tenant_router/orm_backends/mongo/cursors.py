"""PyMongo's cursors, checked at each step: what was fetched before is not handed to another tenant either.

The two methods that all iteration of PyMongo 3.13 passes: ``Cursor.next``, which is ``__next__`` too, and
``CommandCursor._try_next``, by which aggregates and change streams go on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pymongo.command_cursor import CommandCursor
from pymongo.cursor import Cursor

from tenant_router import context as _context
from tenant_router.orm_backends.mongo.bound_client import BoundClient

_next, _try_next = Cursor.next, CommandCursor._try_next
_stack_get = _context.stack.get
_installed: set[str] = set()


def _checked_next(cursor: Any) -> Any:
    client = cursor._Cursor__collection._Collection__database._Database__client
    if type(client) is BoundClient:  # for each document: _tr_check() without calling it
        home, bound = client._tr_home, _stack_get()
        if not bound or bound[0].over or bound[-1].parts[home.orm_id][home.alias] is not home:
            home.use()
    return _next(cursor)


def _checked_try_next(cursor: Any, get_more_allowed: bool) -> Any:
    client = cursor._CommandCursor__collection._Collection__database._Database__client
    if type(client) is BoundClient:
        client._tr_check()
    return _try_next(cursor, get_more_allowed)


def install(orm_id: str) -> None:
    """Check cursors, for one ORM; idempotent."""
    _installed.add(orm_id)
    _set(_checked_next, _checked_try_next)


def uninstall(orm_id: str) -> None:
    """Undo :func:`install`."""
    _installed.discard(orm_id)
    if not _installed:
        _set(_next, _try_next)


def _set(of_queries: Callable[..., Any], of_commands: Callable[..., Any]) -> None:
    Cursor.next = Cursor.__next__ = of_queries
    CommandCursor._try_next = of_commands
