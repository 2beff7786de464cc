"""What a fleet of databases costs its operator: a release that changes nothing.

    python benchmarks/fleet.py

2,000 tenants, whose PostgreSQL is a socket that counts who comes.
"""

from __future__ import annotations

import socket
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from typing import Any

import report
from sites import HERE, OURS, environment, registered, running

from tests.servers import RedisServer

TENANTS, TURNS = 2_000, 5
# What ``migrate`` notes of a database that it has migrated.
NOTED = """
import django
django.setup()
from tenant_router import runtime
from tenant_router.fleet.ledger import Ledger
from tenant_router.managers import tenant_context_manager
ledger, assistant = Ledger(runtime.get().store), runtime.get().orms["django_orm"].migration_asst
for tenant_id in tenant_context_manager.get_tenant_ids():
    for alias, fingerprint in assistant.up_to_date(tenant_context_manager.get_in_any_state(tenant_id)).items():
        ledger.write(alias, fingerprint)
"""


def run(variables: dict[str, str], *command: str) -> float:
    """Seconds that a process takes which does what it should."""
    began = time.perf_counter()
    done = subprocess.run([sys.executable, *command], cwd=HERE, env=variables, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stdout[-2_000:] + done.stderr[-2_000:])
    return time.perf_counter() - began


def comers(server: socket.socket) -> int:
    """How many have connected to a socket that nobody has answered."""
    server.setblocking(False)
    count = 0
    with suppress(BlockingIOError):
        while True:
            server.accept()[0].close()
            count += 1
    return count


def main() -> None:
    with ExitStack() as stack:
        redis = stack.enter_context(running(RedisServer))
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        database: dict[str, Any] = {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": "x",
            "HOST": "127.0.0.1",
            "PORT": server.getsockname()[1],
        }
        service = registered(redis, [database], TENANTS)
        site = {**environment(OURS, [database], redis, service), "DJANGO_SETTINGS_MODULE": "served_settings"}
        run(site, "-c", NOTED)
        turns = [
            (run(site, "-m", "django", "diffsettings"), run(site, "-m", "django", "migrate_all")) for _ in range(TURNS)
        ]
        connections = comers(server)
    over = statistics.median(migrating - starting for starting, migrating in turns)
    report.row("fleet", f"migrate_all, {TENANTS:,} tenants that need nothing, over start-up", over, "s", goal="<= 2")
    report.row("fleet", "the same: connections to databases", connections, "", report.COUNT, "<= 0")


if __name__ == "__main__":
    main()
