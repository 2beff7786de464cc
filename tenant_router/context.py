"""The tenant bound to the current unit of work, and the unit itself.

One :class:`~contextvars.ContextVar` holds an immutable stack: the unit of work, then each bound
context, the innermost last. So threads and asyncio tasks can never share what they bind, and
yet share the unit in which they were started: a task copies the value, a new thread starts
empty. A hook of a higher layer may refuse a change of tenant, or clean up after it.
"""

from __future__ import annotations

import copy
import os
import threading
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, cast

from tenant_router import unit_of_work as units
from tenant_router.exceptions import TenantContextMissing, TenantRouterError, TransactionOpen
from tenant_router.tenant_context import DeniedContext, LateContext, NamedContext, TenantContext
from tenant_router.unit_of_work import Unit

Stack = tuple[Any, ...]  # the Unit, then each TenantContext; empty where nothing is bound


class Pushed(tuple[Any, ...]):
    """A stack whose innermost context was pushed by hand: a block around it ends it, too."""

    __slots__ = ()


stack: ContextVar[Stack] = ContextVar("tenant_router.stack", default=())

# Whether this is a test run. What is found where nothing is bound, in every thread: in a test run, and in the process
# of a command that runs as one tenant. Nothing elsewhere.
testing = False
ambient: Stack = ()

# Called as hook(unit, old, new, leaving): before the change when a tenant is entered (raising refuses it), after
# it when one is left (the context is already reset, raising reports what had to be cleaned up).
Hook = Callable[["Unit | None", "TenantContext | None", "TenantContext | None", bool], None]
_thread = threading.local()


# How a context that has outlived its unit is found again: the registry's, which lies above.
def _as_it_is(context: TenantContext) -> TenantContext:
    return context


find_again: Callable[[TenantContext], TenantContext] = _as_it_is


def watch(hook: Hook | None) -> None:
    """Have ``hook`` called at each change of tenant in this thread, or nothing. Threads that open nothing need none."""
    _thread.hook = hook


def bound() -> Stack:
    """The stack that holds here: of a unit that goes on, else renewed; the process's own where nothing is bound."""
    found = stack.get()
    if found and found[0].over:
        found = renew(found)
    if not found and ambient:
        found = renew(ambient) if ambient[0].over else ambient
    return found


def current() -> TenantContext | None:
    """The bound context, or ``None``."""
    found = bound()
    return found[-1] if found else None


def current_id() -> str | None:
    """The id of the bound tenant, or ``None``. Nothing is found or loaded for it, as for a line of a log."""
    found = stack.get()
    if not found or (found[0].over and not isinstance(found[0], units.Current)):
        found = ambient
    return found[-1].id if found else None


def renew(outlived: Stack) -> Stack:
    """Bind again what has outlived its unit, each tenant at its current revision, in a unit of its own.

    A tenant that cannot be bound any more is denied: each use of it says why. A forked child binds nothing of
    what its parent had bound.
    """
    if not isinstance(outlived[0], units.Current | units.UnbegunUnit):
        stack.set(())
        return ()
    if "renewing" in _thread.__dict__:
        return ()  # what logs while a tenant is found, and uses one for it, would wait for itself
    _thread.renewing = True
    try:
        unit = units.Current()
        unit.closes, unit.renews = isinstance(outlived[-1], LateContext), outlived[0]
        fresh = type(outlived)((unit, *map(_again, outlived[1:])))
    finally:
        del _thread.renewing
    if isinstance(fresh[-1], NamedContext):  # Django is not set up in this process
        return outlived
    if outlived is not ambient or not isinstance(fresh[-1], DeniedContext):  # a thread may try again
        stack.set(fresh)
    return fresh


def refresh(held: Stack) -> TenantContext:
    """Bind the innermost tenant of ``held``, which is bound here, at its current revision; the unit goes on.

    Raises ``TransactionOpen`` inside an open transaction of the tenant, or why it cannot be bound any more.
    """
    unit: Unit = held[0]
    old: TenantContext = held[-1]
    fresh = find_again(old)
    if fresh is old:
        return fresh
    if any(used.tenant_id == old.id and used.in_atomic_block for used in [*unit.uses]):
        raise TransactionOpen(f"a transaction of tenant {old.id!r} is open: end it before refresh()")
    stack.set(type(held)((unit, *(fresh if context.id == old.id else context for context in held[1:]))))
    unit.leave(old.id)
    return fresh


def _again(context: TenantContext) -> TenantContext:
    try:
        return context.resolve() if isinstance(context, LateContext) else find_again(context)
    except TenantRouterError as error:
        return DeniedContext(context.id, error)


def set_testing(on: bool, found: TenantContext | None = None) -> None:
    """Begin or end a test run, in which ``found`` is what code finds where nothing is bound."""
    global ambient, testing
    testing, ambient = on, (units.AmbientUnit(), found) if found is not None else ()


def set_process_tenant(tenant_id: str | None) -> None:
    """Have every thread and forked child of this process find the tenant, in whatever state, where nothing is bound.

    Each thread's, task's or job's first use begins a unit of work there, at the tenant's revision of then. ``None``
    ends this. A test run has its own.
    """
    global ambient
    if not testing:
        ambient = (units.UnbegunUnit(), NamedContext(tenant_id, any_state=True)) if tenant_id is not None else ()


def pinned(tenant_id: str) -> TenantContext | None:
    """The context under which ``tenant_id`` is bound already in this unit of work, if it is."""
    found = stack.get()
    if found and found[0].over:
        found = renew(found)
    for context in found[:0:-1]:
        if context.id == tenant_id:
            return cast(TenantContext, context)
    return None


def enter(context: TenantContext) -> Stack:
    """Bind ``context`` above the current one and return the stack to be given to :func:`leave`."""
    before = stack.get()
    if before and before[0].over:
        before = renew(before)
    old = before[-1] if before else None
    hook = _thread.__dict__.get("hook")  # faster than getattr() where there is none
    if hook is not None and old is not context:
        hook(before[0] if before else None, old, context, False)
    if before:
        before[0].open_block(context.id)
        # Each block has an object of its own, so that one that ends out of turn finds it.
        stack.set((*before, copy.copy(context) if context in before else context))
    else:
        stack.set((units.Current(), context))
    return before


def push(context: TenantContext) -> None:
    """:func:`enter` without a block: until it is popped, or the block around it ends."""
    enter(context)
    stack.set(Pushed((*stack.get()[:-1], context)))


def leave(before: Stack, ends: bool = True) -> None:
    """Restore the stack that :func:`enter` or :func:`begin` returned.

    The outermost binding ends its unit, unless it goes on elsewhere (``ends``): a request's does until its
    response is closed. Raises ``TransactionOpen`` after having rolled back what the left tenant had left open.
    """
    after = stack.get()
    stack.set(before)
    hook = _thread.__dict__.get("hook")
    if hook is not None and after:
        _leave_watched(hook, after, before, ends)
    elif after:
        _release(after, before, ends)


def leave_out_of_turn(before: Stack, mine: Stack, nests: bool) -> None:
    """:func:`leave` a block that had bound ``mine``, where something else is bound now.

    Blocks in generators end in any order, and wherever the collector finds them: such a block takes away what it has
    bound. What others have bound since stays, and what was bound around it, and may be over, does not come back.
    ``nests``: the block is no generator's, so that what was bound since was bound within it, and ends with it.
    """
    now = stack.get()
    place = _place(now, mine) if _is_of(now, mine) else 0
    if place and now[place] is not mine[-1] and [each.id for each in now[1:]] == [each.id for each in mine[1:]]:
        leave(before)  # its tenant was found again at another revision
        return
    if not place:
        _release(mine, before, ends=True)  # elsewhere, where nothing is its own
        return
    ends_all = nests or isinstance(now, Pushed)
    rest = now[:place] if ends_all else (*now[:place], *now[place + 1 :])
    rest = rest if len(rest) > 1 else ()
    stack.set(rest)
    _leave(_thread.__dict__.get("hook"), (now[0], now[-1 if ends_all else place]), rest, ends=True)


def _is_of(now: Stack, mine: Stack) -> bool:
    """Whether ``now`` is of the unit of ``mine``, or of one that renews it."""
    return bool(now) and (now[0] is mine[0] or now[0].renews is mine[0])


def _place(now: Stack, mine: Stack) -> int:
    """Where in ``now`` the innermost context of ``mine`` has got to; 0 if it is there no more.

    Where it was found again since, at another revision, it is the innermost of its tenant whose surroundings fit:
    around it is what was around it before, as far as that was not taken away.
    """
    for index, context in enumerate(now):
        if context is mine[-1]:
            return index
    place, around = 0, iter([context.id for context in mine[1:-1]])
    for index, context in enumerate(now[1 : len(mine)], 1):
        if context.id == mine[-1].id:
            place = index
        if context.id not in around:  # which goes on from where it was found
            break
    return place


def _leave(hook: Hook | None, after: Stack, before: Stack, ends: bool) -> None:
    if hook is not None:
        _leave_watched(hook, after, before, ends)
    else:
        _release(after, before, ends)


def _leave_watched(hook: Hook, after: Stack, before: Stack, ends: bool) -> None:
    old, new = after[-1], before[-1] if before else None
    try:
        if new is None or old.parts is not new.parts:  # which the objects of one tenant's blocks share
            hook(after[0], old, new, True)
    finally:
        _release(after, before, ends)


def _release(after: Stack, before: Stack, ends: bool) -> None:
    unit: Unit = after[0]
    if before and unit is before[0]:
        last = unit.close_block(after[-1].id)
        if last and unit.uses and all(context.id != after[-1].id for context in before[1:]):
            unit.leave(after[-1].id)
    elif not ends:
        pass
    elif unit.uses:
        unit.end()
    else:
        unit.over = True


def begin(context: TenantContext | None) -> Stack:
    """At the door of a request, a task or a command: a unit of its own, whatever somebody has left bound here.

    ``None`` binds nothing. Returns the stack to be given to :func:`leave`. Raises ``TransactionOpen`` where
    another tenant's transaction is open.
    """
    before = stack.get()
    old = before[-1] if before else None
    hook = _thread.__dict__.get("hook")
    if hook is not None and old is not context:
        hook(before[0] if before else None, old, context, False)
    if context is None:
        stack.set(())
    else:
        unit = units.Current()
        unit.closes = True
        stack.set((unit, context))
    return before


def bind_late(context: LateContext | None) -> Stack:
    """At the door of what may not need its tenant: a unit of its own, in which it is looked up at its first use.

    Until then it is bound like something that has outlived its unit. Returns the stack for :func:`leave`.
    """
    before = stack.get()
    if context is None:
        stack.set(())
    else:
        unit = units.Current()
        unit.over = True
        stack.set((unit, context))
    return before


def _after_fork() -> None:
    """Nothing is bound in a child, and nobody watches: its threads are others."""
    _thread.__dict__.clear()
    stack.set(())


os.register_at_fork(after_in_child=_after_fork)


def missing(what: str) -> TenantContextMissing:
    """The error for a use of ``what`` (such as ``"database alias 'default'"``) while no tenant is bound."""
    return TenantContextMissing(
        f"{what} belongs to a tenant, and no tenant is bound here.\n"
        "    from tenant_router.context_decorators import tenant_context_bind\n"
        '    with tenant_context_bind("<tenant id>"): ...'
    )
