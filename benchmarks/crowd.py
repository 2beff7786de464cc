"""A crowd of tenants: what a request pays for those that it does not serve, and for connections that are too few.

    python benchmarks/crowd.py

Caches of 4,000 tenants that one thread serves, against eight. 400 PostgreSQL databases in random turn, against plain
Django with a bound of the same size that is written by hand. 200 connections of one thread, against one. Pools.
"""

from __future__ import annotations

import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import report
from crowd_caches import MANY
from sites import HERE, OURS, PLAIN, running
from variants import Cost, Variant, compare

from tests.servers import PostgresServer

SITE, LENT = "crowd_site.py", "lent"
QUICK = bool(os.environ.get("BENCH_QUICK"))
DATABASES, OPEN, POOLS = (40, 20, 10) if QUICK else (400, 200, 50)
LIMITS = (20,) if QUICK else (20, 50, 100)
TURNS, REQUESTS = (3, 120) if QUICK else (9, 400)  # of both sites by turns, and the requests of each
DJANGO = "django.core.cache.backends"


def caches() -> None:
    """Each backend at the template's location: 4,000 tenants of one thread against eight."""
    with ExitStack() as stack:
        places = {"locmem": (f"{DJANGO}.locmem.LocMemCache", "crowd")}
        if shutil.which("memcached"):
            places["Memcached"] = (f"{DJANGO}.memcached.PyMemcacheCache", stack.enter_context(memcached()))
        for name, (backend, location) in places.items():
            command = [sys.executable, str(HERE / "crowd_caches.py"), backend, location]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            few, after, many = map(float, done.stdout.split())
            report.row("caches", f"{name}: eight after {MANY} were served, against before", after / few, goal="<= 1.1")
            report.row("caches", f"{name}: {MANY} in turn, against eight", many / few, goal="<= 1.25")
            report.row("caches", f"{name}: a request of {MANY} in turn", many * 1000, "ms")


@contextmanager
def memcached() -> Iterator[str]:
    """A server on a socket of its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "socket")
        process = subprocess.Popen([shutil.which("memcached") or "", "-s", path, "-u", "root"])
        try:
            deadline = time.monotonic() + 30
            while not _listens(path):
                assert time.monotonic() < deadline, "memcached does not listen"
                time.sleep(0.01)
            yield f"unix:{path}"
        finally:
            process.terminate()
            process.wait(30)


def _listens(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(path) == 0


class Site(Variant):
    """A process that runs ``crowd_site.py`` in one of its patterns."""

    def __init__(self, pattern: str, system: str, host: str, databases: int, limit: int) -> None:
        super().__init__(SITE, pattern, system, host, databases, limit, name=system)

    def asked(self, requests: int) -> dict[str, float]:
        """Seconds, processor time, connections opened, and threads that live at the end."""
        return dict(self._ask(str(requests)))


class Turns:
    """What two sites took that were asked by turns."""

    def __init__(self, plain: Site, other: Site) -> None:
        for site in (plain, other):
            site.asked(REQUESTS)  # from now on it is warm, and as many connections are open as may be
        self._turns = [(plain.asked(REQUESTS), other.asked(REQUESTS)) for _ in range(TURNS)]
        plain.close()
        other.close()

    def ratio(self, name: str) -> float:
        """The other to plain, each turn for itself."""
        return statistics.median(other[name] / plain[name] for plain, other in self._turns)

    def each(self, name: str) -> tuple[float, float]:
        """Of plain and of the other, in one turn."""
        plain, other = zip(*self._turns, strict=True)
        return statistics.median(one[name] for one in plain), statistics.median(one[name] for one in other)


def connections() -> None:
    """All that needs the databases."""
    with running(PostgresServer) as server:
        make_databases(server)
        for limit in LIMITS:
            bounded(OURS, server.host, limit, f"limit {limit}", ("<= 1.02", ">= 0.95", "<= 1.1"))
        bounded(LENT, server.host, LIMITS[-1], f"floor, limit {LIMITS[-1]}", ("", "", ""))
        many_open(server.host)
        pools(server.host)


def make_databases(server: PostgresServer) -> None:
    server.create_database("crowd")
    with server.connect("crowd") as connection:
        connection.execute("CREATE TABLE bench_note (id integer PRIMARY KEY, text text)")
        connection.execute("INSERT INTO bench_note VALUES (1, '')")
    with server.connect("postgres") as postgres:
        for number in range(DATABASES):
            postgres.execute(f"CREATE DATABASE crowd_{number} TEMPLATE crowd")
            with server.connect(f"crowd_{number}") as connection:
                connection.execute("UPDATE bench_note SET text = %s", [f"of {number}"])


def bounded(system: str, host: str, limit: int, which: str, goals: tuple[str, str, str]) -> None:
    """Eight threads ask for databases at random, and few of these may be open: most requests connect."""
    turns = Turns(*(Site("threads", name, host, DATABASES, limit) for name in (PLAIN, system)))
    question = f"{DATABASES} databases"
    opened = turns.each("opened")[1] / REQUESTS
    report.row(question, f"{which}: connections opened by a request", opened, "")
    report.row(question, f"{which}: connections opened", turns.ratio("opened"), goal=goals[0])
    report.row(question, f"{which}: throughput", 1 / turns.ratio("seconds"), goal=goals[1])
    report.row(question, f"{which}: processor time", turns.ratio("processor"), goal=goals[2])


def many_open(host: str) -> None:
    """One thread that has many connections open, against one that has one."""
    question = f"{OPEN} connections open"
    same, turns, by_hand = (
        many_against_one(host, *which) for which in (("opened", OURS), ("turns", OURS), ("turns", PLAIN))
    )
    report.row(question, "the same tenant: calls", same.calls_ratio, kind=report.COUNT, goal="<= 1")
    report.row(question, "all in turn: calls", turns.calls_ratio, kind=report.COUNT, goal="<= 1")
    report.row(question, "the same tenant: processor time", same.micros_ratio, goal="<= 1.1")
    report.row(question, "all in turn: processor time", turns.micros_ratio)
    report.row(question, "floor, all in turn by hand: processor time", by_hand.micros_ratio)


def many_against_one(host: str, pattern: str, system: str) -> Cost:
    one, many = (Variant(SITE, pattern, system, host, number, 1_000, name=str(number)) for number in (1, OPEN))
    return compare([one, many])[many.name]


def pools(host: str) -> None:
    """Each request in a new thread, and a pool for each database: ours, and psycopg_pool's in a dictionary."""
    turns = Turns(*(Site("pools", name, host, POOLS, 1_000) for name in (PLAIN, OURS)))
    by_hand, ours = turns.each("threads")
    report.row(f"{POOLS} pools", "threads", ours, "", report.COUNT, "<= 5")
    report.row(f"{POOLS} pools", "threads, by hand", by_hand, "", report.COUNT)
    report.row(f"{POOLS} pools", "a thread for each request: processor time", turns.ratio("processor"), goal="<= 1.1")


def main() -> None:
    caches()
    connections()


if __name__ == "__main__":
    main()
