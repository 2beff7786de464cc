"""``STRICT`` test mode: a tenant is bound only where production would bind one, so what fails there fails here.

The test itself is a unit of work of the test tenant. Threads and pools that it starts find
nothing, and a request of the test client begins with nothing bound, so that only the
middleware can bind it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.test.client import AsyncClientHandler, ClientHandler

from tenant_router import context as _context

_originals: dict[Any, Any] = {}


def install() -> None:
    """Have the requests of test clients begin unbound; idempotent."""
    if not _originals:
        handlers: list[tuple[Any, Any]] = [(ClientHandler, _call), (AsyncClientHandler, _call_async)]
        for handler, patched in handlers:
            _originals[handler] = handler.__call__
            handler.__call__ = patched


def uninstall() -> None:
    """Undo :func:`install`."""
    for handler, original in _originals.items():
        handler.__call__ = original
    _originals.clear()


def _call(self: ClientHandler, environ: dict[str, Any]) -> Any:
    with _nothing_bound():
        return _originals[ClientHandler](self, environ)


async def _call_async(self: AsyncClientHandler, scope: dict[str, Any]) -> Any:
    with _nothing_bound():
        return await _originals[AsyncClientHandler](self, scope)


@contextmanager
def _nothing_bound() -> Iterator[None]:
    # Without the hooks: the transaction around the test is not the application's.
    before = _context.stack.get()
    _context.stack.set(())
    try:
        yield
    finally:
        _context.stack.set(before)
