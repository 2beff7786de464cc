"""Memory of a real gunicorn worker: tenants that nobody asked for, and tenants whose connections are open.

python benchmarks/memory.py

PSS of the worker process. What is open is compared with plain Django and as many aliases.
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path

import report
from sites import OURS, PLAIN, environment, on_sqlite, registered, running, served

from tests.servers import RedisServer

MANY, OPEN = 100_000, 200


def idle(redis: RedisServer, databases: list[dict[str, object]]) -> float:
    """Bytes of one tenant of many that is not in use."""
    found = {}
    for count in (10, MANY):
        service = registered(redis, databases[:1], count)
        with served(environment(OURS, databases[:1], redis, service)) as worker:
            worker.visit(["t0.test"])
            found[count] = worker.memory
    return (found[MANY] - found[10]) / (MANY - 10)


def in_use(system: str, redis: RedisServer, databases: list[dict[str, object]]) -> float:
    """Bytes of one tenant, or alias, that was asked for once."""
    service = registered(redis, databases, OPEN) if system == OURS else ""
    with served(environment(system, databases, redis, service)) as worker:
        worker.visit(["t0.test"] * 20)  # one keep-alive connection, and so one thread
        before = worker.memory
        worker.visit([f"t{number}.test" for number in range(1, OPEN)])
        return (worker.memory - before) / (OPEN - 1)


def main() -> None:
    with ExitStack() as stack:
        redis = stack.enter_context(running(RedisServer))
        databases = on_sqlite(Path(stack.enter_context(tempfile.TemporaryDirectory())), OPEN)
        each = idle(redis, databases)
        report.row("memory", "a tenant that is not in use", each / 1024, "kB", report.MEMORY, "<= 0.3")
        ours, plain = (in_use(system, redis, databases) for system in (OURS, PLAIN))
        report.row("memory", "a tenant in use", ours / 1024, "kB", report.MEMORY)
        report.row("memory", "an open alias of plain Django", plain / 1024, "kB", report.MEMORY)
        report.row("memory", "in use, against plain", ours / plain, "x", report.MEMORY, "<= 1.25")


if __name__ == "__main__":
    main()
