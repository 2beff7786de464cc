"""The same request with every package for tenants, on the same PostgreSQL, in one run.

    python benchmarks/peers.py [--tenants 10 100 1000 10000]

Each package is installed from PyPI into an environment of its own under ``.bench``. "plain" is
Django over eight databases, with the alias named in the view; "aliases" is Django with all tenants'
databases in ``DATABASES``. Tenants take turns, and each answer is checked to be its tenant's own.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
import venv
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import report
from sites import OURS, PLAIN, commands, on_postgres, running
from variants import REQUESTS, Variant, compare

from tests.servers import PostgresServer, RedisServer

ENVIRONMENTS = Path(__file__).resolve().parent.parent / ".bench"
ALIASES = "aliases"
PEERS = ("django-tenants", "django-pgschemas", "django-tenants-router", "django-multitenant")
VISITED = 8


def environment(peer: str) -> str:
    """The interpreter of the peer's environment, which is made if it is missing."""
    import django

    folder = ENVIRONMENTS / peer
    python = folder / "bin" / "python"
    if not (folder / ".made").exists():
        venv.create(folder, with_pip=True, clear=True)
        wanted = [peer, f"Django=={django.__version__}", "psycopg[binary]"]
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted], check=True)
        (folder / ".made").touch()
    return str(python)


def all_systems(postgres: PostgresServer, redis: RedisServer, registered: int, pythons: dict[str, str]) -> None:
    """Every system, eight tenants in turn."""
    question = f"request, {registered:,} tenants"
    systems = [name for name in (PLAIN, OURS, *PEERS, ALIASES) if name != ALIASES or registered <= 1_000]
    made = [
        Variant(
            "peer_site.py",
            name,
            registered,
            VISITED,
            postgres.host,
            redis.url,
            python=pythons.get(name, sys.executable),
        )
        for name in systems
    ]
    ours = made[systems.index(OURS)]
    ours.counted()  # it has started
    time.sleep(3)  # a process tells the fleet of itself a second after its start, and when it ends
    before = commands(redis)
    ours.timed(REQUESTS)
    asked = commands(redis) - before
    report.row(question, f"{OURS}: store commands of {REQUESTS} requests", asked, "", report.COUNT, goal="<= 0")
    found = compare(made)
    for name, cost in found.items():
        calls, processor, statements = ("<= 1.12", "<= 1.08", "<= 1") if name == OURS else ("", "", "")
        report.row(question, f"{name}: calls", cost.calls_ratio, kind=report.COUNT, goal=calls)
        report.row(question, f"{name}: processor time", cost.micros_ratio, goal=processor)
        report.row(question, f"{name}: statements", cost.statements, "", report.COUNT, goal=statements)
        report.row(question, f"{name}: connections visited", cost.visited, "", report.COUNT)


def one_tenant(postgres: PostgresServer, redis: RedisServer) -> None:
    """One tenant of 1,000 is asked for, against plain Django with one database."""
    made = [Variant("peer_site.py", name, 1_000, 1, postgres.host, redis.url) for name in (PLAIN, OURS)]
    cost = compare(made)[OURS]
    question = "request, one tenant"
    report.row(question, f"{OURS}: calls", cost.calls_ratio, kind=report.COUNT, goal="<= 1.12")
    report.row(question, f"{OURS}: processor time", cost.micros_ratio, goal="<= 1.05")


def growth(postgres: PostgresServer, redis: RedisServer) -> None:
    """The same request with ever more tenants registered, against ten."""
    numbers = (10, 1_000, 10_000, 100_000)
    found = compare(
        Variant("peer_site.py", OURS, number, VISITED, postgres.host, redis.url, name=str(number)) for number in numbers
    )
    for number in numbers[1:]:
        cost = found[str(number)]
        what = f"{number:,} tenants against 10"
        report.row("growth", f"{what}: calls", cost.calls_ratio, kind=report.COUNT, goal="<= 1")
        report.row("growth", f"{what}: processor time", cost.micros_ratio, goal="<= 1.05")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tenants", type=int, nargs="+", default=[10, 100, 1_000, 10_000])
    options = parser.parse_args()
    pythons = {peer: environment(peer) for peer in PEERS}
    with ExitStack() as stack:
        postgres, redis = stack.enter_context(running(PostgresServer)), stack.enter_context(running(RedisServer))
        on_postgres(postgres, VISITED)
        for registered in options.tenants:
            all_systems(postgres, redis, registered, pythons)
        one_tenant(postgres, redis)
        growth(postgres, redis)


if __name__ == "__main__":
    main()
