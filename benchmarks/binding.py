"""What binding a tenant costs, against a bare ContextVar that is set and reset.

python benchmarks/binding.py
"""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from contextvars import ContextVar

import report
from site_of_one import make_tenant
from timing import compare

from tenant_router.context_decorators import tenant_context_bind

CALLS = 20_000
GOAL = "<= 6"
bare: ContextVar[str] = ContextVar("bare")


def bind() -> None:
    with tenant_context_bind("bench.test"):
        pass


def bind_and_query() -> None:
    from django.db import connection

    with tenant_context_bind("bench.test"), connection.cursor() as cursor:
        cursor.execute("SELECT 1")


def set_and_reset() -> None:
    token = bare.set("bench.test")
    try:
        pass
    finally:
        bare.reset(token)


class Least:
    """The least that a block can do: an object that sets and resets."""

    __slots__ = ("_before",)

    def __init__(self, tenant_id: str) -> None:
        self._before = tenant_id

    def __enter__(self) -> None:
        before, _ = bare.get(""), bare.set(self._before)
        self._before = before

    def __exit__(self, *error: object) -> None:
        bare.set(self._before)

    async def __aenter__(self) -> None:
        self.__enter__()

    async def __aexit__(self, *error: object) -> None:
        self.__exit__()


def least() -> None:
    with Least("bench.test"):
        pass


def crowd(body: str) -> object:
    """A function that runs ``body`` many times inside one event loop, so that the loop's start does not count."""
    scope: dict[str, object] = {"tenant_context_bind": tenant_context_bind, "Least": Least, "bare": bare}
    lines = "\n        ".join(body.splitlines())
    exec(f"async def run():\n    for _ in range({CALLS}):\n        {lines}\n", scope)
    run = scope["run"]
    return lambda: asyncio.run(run())  # type: ignore[operator]


def outliving(function: object, calls: int = 1_000) -> float:
    """Bytes that ``calls`` calls leave behind."""
    assert callable(function)
    function()
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(calls):
        function()
    gc.collect()
    left = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    return left / calls


def main() -> None:
    make_tenant()
    asynchronous = crowd("async with tenant_context_bind('bench.test'):\n    pass")
    bare_in_loop = crowd("token = bare.set('bench.test')\ntry:\n    pass\nfinally:\n    bare.reset(token)")
    report.row("binding", "with, nothing opened", compare(bind, set_and_reset, calls=CALLS).ratio, goal=GOAL)
    report.row("binding", "async with", compare(asynchronous, bare_in_loop, calls=1, rounds=15).ratio, goal=GOAL)
    report.row("binding", "bytes that outlive it", outliving(bind), "B", report.COUNT, goal="<= 1")
    report.row(
        "binding", "floor: with, an object that sets and resets", compare(least, set_and_reset, calls=CALLS).ratio
    )
    floor = compare(crowd("async with Least('bench.test'):\n    pass"), bare_in_loop, calls=1, rounds=15).ratio
    report.row("binding", "floor: async with, the same", floor)
    bind_and_query()
    report.row("binding", "with, a connection is open", compare(bind, set_and_reset, calls=CALLS).ratio, goal=GOAL)


if __name__ == "__main__":
    main()
