"""The tenant bound to the current unit of work.

One :class:`~contextvars.ContextVar` holds an immutable stack of contexts, so threads and
asyncio tasks can never share what they bind: a task copies the value, a new thread starts
empty. A hook of a higher layer may refuse a change of tenant, or clean up after it.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from tenant_router.exceptions import TenantContextMissing


class TenantContext:
    """One tenant at one revision of its configuration. Immutable.

    Who holds a context keeps using that revision: this is what makes a request that began on
    a tenant's old database end on it.

    ``id``: the tenant id. ``revision``: the store's revision of the record. ``parts``: what each
    manager prepared from the record, by ORM id (and ``"cache"``).
    """

    __slots__ = ("id", "parts", "revision")

    def __init__(self, id: str, revision: int, parts: Mapping[str, Any]) -> None:
        self.id = id
        self.revision = revision
        self.parts = parts

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id!r} revision {self.revision}>"


class FixedContext(TenantContext):
    """Bound as it is, whatever state or revision the tenant has: how operators migrate what nobody is served from."""

    __slots__ = ()


class PlainContext(TenantContext):
    """The test tenant of a test run: what only keeps tenants apart is left as Django has it."""

    __slots__ = ()


class DeniedContext(TenantContext):
    """Stands where a tenant could not be bound: every use of it raises ``error``."""

    __slots__ = ("error",)

    def __init__(self, id: str, error: Exception) -> None:
        super().__init__(id, 0, _Denying(error))
        self.error = error


class _Denying(Mapping[str, Any]):
    def __init__(self, error: Exception) -> None:
        self._error = error

    def __getitem__(self, key: str) -> Any:
        # A fresh exception each time: raising one object twice would grow its traceback.
        raise copy.copy(self._error) from self._error

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


Stack = tuple[TenantContext, ...]
stack: ContextVar[Stack] = ContextVar("tenant_router.stack", default=())

# Of a test run: whether this is one, and what is found where nothing is bound, in every thread. Off elsewhere.
testing = False
ambient: Stack = ()

# Called as hook(old, new, leaving): before the change when a tenant is entered (raising refuses it), after
# it when one is left (the context is already reset, raising reports what had to be cleaned up).
Hook = Callable[["TenantContext | None", "TenantContext | None", bool], None]
_thread = threading.local()


def watch(hook: Hook | None) -> None:
    """Have ``hook`` called at each change of tenant in this thread, or nothing. Threads that open nothing need none."""
    _thread.hook = hook


def current() -> TenantContext | None:
    """The bound context, or ``None``."""
    bound = stack.get() or ambient
    return bound[-1] if bound else None


def set_testing(on: bool, found: TenantContext | None = None) -> None:
    """Begin or end a test run, in which ``found`` is what code finds where nothing is bound."""
    global ambient, testing
    testing, ambient = on, (found,) if found is not None else ()


def pinned(tenant_id: str) -> TenantContext | None:
    """The context under which ``tenant_id`` is bound already in this unit of work, if it is."""
    for context in reversed(stack.get()):
        if context.id == tenant_id:
            return context
    return None


def enter(context: TenantContext) -> Stack:
    """Bind ``context`` above the current one and return the stack to be given to :func:`leave`."""
    before = stack.get()
    old = before[-1] if before else None
    hook = _thread.__dict__.get("hook")  # faster than getattr() where there is none
    if hook is not None and old is not context:
        hook(old, context, False)
    stack.set((*before, context))
    return before


def leave(before: Stack) -> None:
    """Restore the stack that :func:`enter` returned."""
    after = stack.get()
    stack.set(before)
    old, new = (after[-1] if after else None), (before[-1] if before else None)
    hook = _thread.__dict__.get("hook")
    if hook is not None and old is not new:
        hook(old, new, True)


@contextmanager
def step(context: TenantContext) -> Iterator[None]:
    """Bind ``context`` for one step of a generator.

    A transaction that the generator holds open over its ``yield`` is its own business: its
    block ends within a later step, bound again. So nothing is refused when the step ends.
    """
    before = enter(context)
    try:
        yield
    finally:
        stack.set(before)


def missing(what: str) -> TenantContextMissing:
    """The error for a use of ``what`` (such as ``"database alias 'default'"``) while no tenant is bound."""
    return TenantContextMissing(
        f"{what} belongs to a tenant, and no tenant is bound here.\n"
        "    from tenant_router.context_decorators import tenant_context_bind\n"
        '    with tenant_context_bind("<tenant id>"): ...'
    )
