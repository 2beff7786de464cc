"""Bind a tenant around code: ``tenant_context_bind`` and ``carry_tenant``."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

from tenant_router import context as _context
from tenant_router.context import Stack, TenantContext
from tenant_router.managers import tenant_context_manager

P = ParamSpec("P")
R = TypeVar("R")


class tenant_context_bind:
    """Bind a tenant: ``with``, ``async with``, or a decorator of any kind of function.

    Decorated coroutines, generators and async generators are bound while they run, each step
    of a generator for itself, so their callers never see the tenant.

    ``tenant``: a tenant id (resolved when the block is entered or the function called) or a
    :class:`TenantContext`. A tenant that is bound already keeps its revision for the unit of work.

    Raises ``TenantNotFound``, ``TenantDeleted``, ``TenantUnavailable``, or ``TransactionOpen``
    inside an open transaction of another tenant.
    """

    __slots__ = ("_before", "_tenant")

    def __init__(self, tenant: str | TenantContext) -> None:
        self._tenant = tenant
        self._before: Stack | None = None

    def __enter__(self) -> TenantContext:
        if self._before is not None:
            raise RuntimeError("this tenant_context_bind is entered already: make one for each block")
        # Nearly every block names the id of a served tenant, where none is bound.
        serving: Any = tenant_context_manager.serving
        context = (None if _context.stack.get() else serving.get(self._tenant)) or resolve(self._tenant)
        self._before = _context.enter(context)
        return context

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        before, self._before = self._before, None
        _context.leave(before or ())

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
        elif inspect.isgeneratorfunction(function):
            wrapper = _generator(self._tenant, function)
        elif inspect.iscoroutinefunction(function):
            wrapper = _coroutine(self._tenant, function)
        else:
            wrapper = _plain(self._tenant, function)
        return functools.wraps(function)(wrapper)


def carry_tenant(function: Callable[P, R]) -> Callable[P, R]:
    """Return ``function`` bound to the tenant that is bound now, for a thread or a pool.

    The tenant is resolved again when the function runs: work that outlives its unit runs on
    the tenant's configuration of that time. With no tenant bound, ``function`` runs unbound.
    """
    bound = _context.current()
    return tenant_context_bind(bound.id)(function) if bound is not None else function


def resolve(tenant: str | TenantContext) -> TenantContext:
    """The context to bind for ``tenant``: the one pinned in this unit of work, else the current one."""
    if _context.stack.get():
        held = _context.pinned(tenant if isinstance(tenant, str) else tenant.id)
        if held is not None:
            return held
    return tenant_context_manager.get_by_id(tenant) if isinstance(tenant, str) else tenant


def bound_steps(context: TenantContext, generator: Generator[Any, Any, R]) -> Generator[Any, Any, R]:
    """Run a generator with ``context`` bound during each of its steps and unbound between them."""
    resume: Callable[[], Any] = functools.partial(next, generator)
    while True:
        try:
            with _context.step(context):
                item = resume()
        except StopIteration as stop:
            result: R = stop.value
            return result
        try:
            sent = yield item
            resume = functools.partial(generator.send, sent)
        except GeneratorExit:
            with _context.step(context):
                generator.close()
            raise
        except BaseException as error:
            resume = functools.partial(generator.throw, error)


async def bound_async_steps(context: TenantContext, generator: AsyncGenerator[Any, Any]) -> AsyncGenerator[Any, Any]:
    """:func:`bound_steps` for an async generator.

    Each step sets and restores the context by itself: a token could not be used, because the
    steps of one generator may run in different tasks.
    """
    resume: Callable[[], Awaitable[Any]] = functools.partial(anext, generator)
    while True:
        try:
            with _context.step(context):
                item = await resume()
        except StopAsyncIteration:
            return
        try:
            sent = yield item
            resume = functools.partial(generator.asend, sent)
        except GeneratorExit:
            with _context.step(context):
                await generator.aclose()
            raise
        except BaseException as error:
            resume = functools.partial(generator.athrow, error)


def _plain(tenant: str | TenantContext, function: Callable[..., Any]) -> Callable[..., Any]:
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        with tenant_context_bind(tenant):
            return function(*args, **kwargs)

    return wrapper


def _coroutine(tenant: str | TenantContext, function: Callable[..., Any]) -> Callable[..., Any]:
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        with tenant_context_bind(tenant):
            return await function(*args, **kwargs)

    return wrapper


def _generator(tenant: str | TenantContext, function: Callable[..., Any]) -> Callable[..., Any]:
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return (yield from bound_steps(resolve(tenant), function(*args, **kwargs)))

    return wrapper


def _async_generator(tenant: str | TenantContext, function: Callable[..., Any]) -> Callable[..., Any]:
    def wrapper(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        return bound_async_steps(resolve(tenant), function(*args, **kwargs))

    return wrapper
