"""Generators that are bound during each of their steps, and leave their consumer as it is between them."""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from typing import Any, TypeVar

from tenant_router import context as _context
from tenant_router.context import Stack

R = TypeVar("R")


class Steps:
    """Binds ``mine`` again and again: for each step of a generator, each chunk of a response.

    A transaction that is held open between two steps is the generator's own business: its block
    ends within a later step, bound again. So nothing is refused when a step ends.
    """

    def __init__(self, mine: Stack) -> None:
        self._mine = mine
        self._before: Stack = ()
        self._last = False

    def last(self) -> Steps:
        """For the step in which a generator only clears up, wherever it is closed or collected: nothing refuses it."""
        self._last = True  # else it would clear up as whoever is bound there, within whose transaction it may be
        return self

    def __enter__(self) -> None:
        before = self._before = _context.stack.get()
        hook = _context._thread.__dict__.get("hook")
        old, new = before[-1] if before else None, self._mine[-1]
        if hook is not None and old is not new and not self._last:
            hook(before[0] if before else None, old, new, False)
        _context.stack.set(self._mine)

    def __exit__(self, *error: object) -> None:
        # The next step goes on with this: a block may be open over the yield, and what is over was bound again if used.
        self._mine = _context.stack.get() or self._mine
        _context.stack.set(self._before)

    def end(self) -> None:
        """There are no more steps: end the unit."""
        self._mine[0].end()


def bound_steps(steps: Steps, generator: Generator[Any, Any, R]) -> Generator[Any, Any, R]:
    """Run a generator bound by ``steps`` during each of its steps, and as its consumer is between them."""
    resume: Callable[[], Any] = functools.partial(next, generator)
    try:
        while True:
            try:
                with steps:
                    item = resume()
            except StopIteration as stop:
                result: R = stop.value
                return result
            try:
                sent = yield item
                resume = functools.partial(generator.send, sent)
            except GeneratorExit:
                raise
            except BaseException as error:
                resume = functools.partial(generator.throw, error)
    except BaseException:  # it is closed or collected, or a step was refused
        with steps.last():
            generator.close()
        raise


async def bound_async_steps(
    steps: Steps, generator: AsyncGenerator[Any, Any], ended: Callable[[], None] | None = None
) -> AsyncGenerator[Any, Any]:
    """:func:`bound_steps` for an async generator; ``ended`` is called after the last step.

    Each step sets and restores the context by itself: a token could not be used, because the
    steps of one generator may run in different tasks.
    """
    resume: Callable[[], Awaitable[Any]] = functools.partial(anext, generator)
    try:
        while True:
            try:
                with steps:
                    item = await resume()
            except StopAsyncIteration:
                return
            try:
                sent = yield item
                resume = functools.partial(generator.asend, sent)
            except GeneratorExit:
                raise
            except BaseException as error:
                resume = functools.partial(generator.athrow, error)
    except BaseException:
        with steps.last():
            await generator.aclose()
        raise
    finally:
        if ended is not None:
            ended()
