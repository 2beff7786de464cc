"""Bind a tenant around code: ``tenant_context_bind`` and ``carry_tenant``."""

from __future__ import annotations

import asyncio
import functools
import inspect
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from types import FrameType, TracebackType
from typing import Any, ParamSpec, TypeVar, cast

from asgiref.sync import iscoroutinefunction, markcoroutinefunction

from tenant_router import context as _context
from tenant_router import unit_of_work as units
from tenant_router.context import Stack
from tenant_router.generators import Steps, bound_async_steps, bound_steps
from tenant_router.managers import tenant_context_manager
from tenant_router.tenant_context import TenantContext

P = ParamSpec("P")
R = TypeVar("R")


class tenant_context_bind:
    """Bind a tenant: ``with``, ``async with``, or a decorator of any kind of function.

    Decorated coroutines, generators and async generators are bound while they run, each step
    of a generator for itself, so their callers never see the tenant; so is what a decorated
    function returns, when that is an awaitable or a generator.

    ``tenant``: a tenant id (resolved when the block is entered or the function called) or a
    :class:`TenantContext`, which is resolved again if its revision is no longer the current one. A
    tenant that is bound already keeps its revision for the unit of work.

    Raises ``TenantNotFound``, ``TenantDeleted``, ``TenantUnavailable``, or ``TransactionOpen``
    inside an open transaction of another tenant.
    """

    __slots__ = ("_before", "_mine", "_tenant")

    def __init__(self, tenant: str | TenantContext) -> None:
        self._tenant = tenant
        self._before: Stack | None = None
        self._mine: Stack = ()

    def __enter__(self) -> TenantContext:
        if self._before is not None:
            raise RuntimeError("this tenant_context_bind is entered already: make one for each block")
        # Nearly every block names the id of a served tenant, where none is bound.
        serving: Any = tenant_context_manager.serving
        context = (None if _context.stack.get() else serving.get(self._tenant)) or resolve(self._tenant)
        self._before = _context.enter(context)
        self._mine = _context.stack.get()
        return context

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        before, self._before = self._before or (), None
        if _context.stack.get() is self._mine:
            _context.leave(before)
        else:
            _context.leave_out_of_turn(before, self._mine, nests=not _is_in_generator(sys._getframe(1)))

    async def __aenter__(self) -> TenantContext:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Decorate ``function``."""
        wrapper: Callable[..., Any]
        if inspect.isasyncgenfunction(function):
            wrapper = _async_generator(self._tenant, function)
        elif inspect.isgeneratorfunction(function) and not _is_awaited(function):
            wrapper = _generator(self._tenant, function)
        elif iscoroutinefunction(function):
            wrapper = _coroutine(self._tenant, cast("Callable[..., Any]", function))
        else:
            wrapper = _plain(self._tenant, function)
        return functools.wraps(function)(wrapper)


def _is_in_generator(frame: FrameType | None) -> bool:
    """Whether a generator's code leaves the block, ``frame`` being that which calls ``__exit__``."""
    if frame is not None and frame.f_code is tenant_context_bind.__aexit__.__code__:
        frame = frame.f_back
    return frame is not None and bool(frame.f_code.co_flags & (inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR))


class CarriedFunction:
    """A function with the tenant that was bound when it was carried. It can be pickled if the function can."""

    def __init__(self, function: Callable[..., Any], tenant_id: str, marked: bool = False) -> None:
        functools.update_wrapper(self, function)
        self._function, self._tenant_id = function, tenant_id
        if marked or iscoroutinefunction(function):
            markcoroutinefunction(self)  # asyncio and Django ask

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function, bound to its tenant at its revision of now."""
        return tenant_context_bind(self._tenant_id)(self._function)(*args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        # The mark is an object, which a pickled sync_to_async(...) has no more.
        return type(self), (self._function, self._tenant_id, iscoroutinefunction(self))


def carry_tenant(function: Callable[P, R]) -> Callable[P, R]:
    """Return ``function`` bound to the tenant that is bound now, for a thread or a pool.

    The tenant is resolved again when the function runs: work that outlives its unit runs on
    the tenant's configuration of that time. With no tenant bound, ``function`` runs unbound.
    What it returns is bound, too, when that is an awaitable or a generator.
    """
    bound = _context.current()
    return cast("Callable[P, R]", CarriedFunction(function, bound.id)) if bound is not None else function


def resolve(tenant: str | TenantContext) -> TenantContext:
    """The context to bind for ``tenant``: the one pinned in this unit of work, else the current one."""
    if _context.stack.get():
        held = _context.pinned(tenant if isinstance(tenant, str) else tenant.id)
        if held is not None:
            return held
    return tenant_context_manager.get_by_id(tenant) if isinstance(tenant, str) else _context.find_again(tenant)


def _plain(tenant: str | TenantContext, function: Callable[..., Any]) -> Callable[..., Any]:
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        with tenant_context_bind(tenant):
            result = function(*args, **kwargs)
        return _bound_result(tenant, result)

    return wrapper


def _bound_result(tenant: str | TenantContext, result: Any) -> Any:
    """What a function has returned, bound while it runs if it is yet to run."""
    if inspect.isawaitable(result):  # asked first: what types.coroutine() makes is a generator, too
        return result if asyncio.isfuture(result) else _awaited(tenant, result)  # a future runs already, as who made it
    if inspect.isgenerator(result):
        return _own_steps(tenant, result)
    if inspect.isasyncgen(result):
        return _own_async_steps(tenant, result)
    return result


def _is_awaited(function: Callable[..., Any]) -> bool:
    """Whether it is a generator function that ``types.coroutine`` has marked: what it returns is awaited."""
    code = getattr(function, "__code__", None)
    return code is not None and bool(code.co_flags & inspect.CO_ITERABLE_COROUTINE)


async def _awaited(tenant: str | TenantContext, result: Awaitable[R]) -> R:
    with tenant_context_bind(tenant):
        return await result


def _coroutine(tenant: str | TenantContext, function: Callable[..., Any]) -> Callable[..., Any]:
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        with tenant_context_bind(tenant):
            return await function(*args, **kwargs)

    return wrapper


def _generator(tenant: str | TenantContext, function: Callable[..., Any]) -> Callable[..., Any]:
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return (yield from _own_steps(tenant, function(*args, **kwargs)))

    return wrapper


def _async_generator(tenant: str | TenantContext, function: Callable[..., Any]) -> Callable[..., Any]:
    def wrapper(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        return _own_async_steps(tenant, function(*args, **kwargs))

    return wrapper


def _own_steps(tenant: str | TenantContext, generator: Generator[Any, Any, R]) -> Generator[Any, Any, R]:
    mine = _stack_for(tenant)
    steps = Steps(mine)
    try:
        return (yield from bound_steps(steps, generator))
    finally:
        _end_steps(steps, mine)


def _own_async_steps(tenant: str | TenantContext, generator: AsyncGenerator[Any, Any]) -> AsyncGenerator[Any, Any]:
    mine = _stack_for(tenant)
    steps = Steps(mine)
    return bound_async_steps(steps, generator, functools.partial(_end_steps, steps, mine))


def _stack_for(tenant: str | TenantContext) -> Stack:
    """What a generator binds at each step: within the unit in which it begins, or in one of its own."""
    context, bound = resolve(tenant), _context.stack.get()
    return (bound[0], context) if bound else (units.Current(), context)


def _end_steps(steps: Steps, mine: Stack) -> None:
    bound = _context.stack.get()
    if bound and bound[0] is mine[0]:  # the consumer's own unit goes on
        if all(context.id != mine[-1].id for context in bound[1:]):
            mine[0].leave(mine[-1].id)
    else:
        steps.end()
