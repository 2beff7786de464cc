"""What is submitted to another thread or process, with the tenant of who submitted it.

A worker process that was spawned imports this module to unpickle a job, so it needs no Django that is set up.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from tenant_router import context as _context
from tenant_router import unit_of_work as units
from tenant_router.context import Stack
from tenant_router.tenant_context import DeniedContext, NamedContext, TenantContext


def run_as(carried: Stack, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Call ``function`` as what ``carried`` binds, or unbound, whatever somebody has left bound here.

    While the unit of ``carried`` goes on it is shared. What the function pushes and never pops ends with it.
    """
    before = _context.stack.get()
    hook = _context._thread.__dict__.get("hook")
    if hook is not None and before[-1:] != carried[-1:]:
        hook(before[0] if before else None, before[-1] if before else None, carried[-1] if carried else None, False)
    _context.stack.set(carried)
    try:
        return function(*args, **kwargs)
    finally:
        after = _context.stack.get()
        _context.stack.set(before)
        if after is not before:
            _come_back(carried, after, before)


def _come_back(carried: Stack, after: Stack, before: Stack) -> None:
    hook = _context._thread.__dict__.get("hook")
    try:
        if hook is not None and after and after[-1:] != before[-1:]:
            hook(after[0], after[-1], before[-1] if before else None, True)
    finally:
        if after and (not carried or after[0] is not carried[0]):
            after[0].end()


class Submitted(partial[Any]):
    """A function that runs as the tenant that had it submitted, or unbound.

    In a thread it shares the submitter's unit of work while that goes on; in another process, which gets the
    tenant's id, and after the unit has ended, the tenant is found at its first use.
    """

    # A partial of run_as(), whose making and calling cost no call of Python's own.

    def __reduce__(self) -> tuple[Any, ...]:
        carried, function, *args = self.args
        return _unpickle, (_portable(carried), function, args, self.keywords)


def submitted(function: Callable[..., Any]) -> Submitted:
    """``function`` as what is bound now."""
    return Submitted(run_as, _context.stack.get(), function)


def _portable(carried: Stack) -> TenantContext | None:
    if not carried or not isinstance(carried[0], units.Current):
        return None
    context: TenantContext = carried[-1]
    if isinstance(context, DeniedContext | NamedContext):
        return context
    own = _context.ambient[-1] if _context.ambient else None  # a command's, which may be suspended
    return NamedContext(context.id, any_state=isinstance(own, NamedContext) and own.id == context.id and own.any_state)


def _unpickle(
    context: TenantContext | None, function: Callable[..., Any], args: list[Any], keywords: dict[str, Any]
) -> Submitted:
    carried: Stack = ()
    if context is not None:
        unit = units.Current()
        unit.end()  # so that the first use finds the tenant anew
        carried = (unit, context)
    return Submitted(run_as, carried, function, *args, **keywords)
