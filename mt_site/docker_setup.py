"""What the services of docker-compose need before the site starts: databases, configuration, tables, hospitals.

python docker_setup.py                       the tenants of tenant_config.json
python docker_setup.py tenant-3.test.com     one more, while the site runs
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

from demo_stack import tenants
from demo_stack.databases import create_databases
from demo_stack.errors import DemoError

PATIENCE = 60.0  # seconds for all services together


def main() -> int:
    try:
        set_up(sys.argv[1:])
    except DemoError as error:
        print(f"setup: {error}", file=sys.stderr)
        return 1
    return 0


def set_up(added: list[str]) -> None:
    names = [tenants.validated(tenant) for tenant in added] or list(tenants.configured_databases())
    wait_for_services()
    server = "host={PG_HOST} user={PG_USER} password={PG_PASSWORD}".format_map(os.environ)
    create_databases(server, map(tenants.database_of, names))
    for config in [tenants.of_one(tenant, os.environ) for tenant in added] or [tenants.shipped(os.environ)]:
        # Migrated first and served then: nobody sees a tenant without its tables.
        run(tenants.manage("load_tenant_config", "--migrate", "-f", "-"), json.dumps(config))
    for tenant in names:
        run(tenants.seed(tenant))


def wait_for_services() -> None:
    """Raise ``DemoError`` that names the service which does not answer in time."""
    deadline = time.monotonic() + PATIENCE
    for name, host, port in _services():
        while not _answers(host, port):
            if time.monotonic() > deadline:
                raise DemoError(
                    f"{name} does not answer at {host}:{port}; `docker-compose ps` and `logs {host}` say why"
                )
            time.sleep(0.5)


def _services() -> Iterator[tuple[str, str, int]]:
    yield "PostgreSQL", os.environ["PG_HOST"], int(os.environ.get("PG_PORT", "5432"))
    for name, variable in (("Redis", "REDIS_URL"), ("MongoDB", "MONGO_URL"), ("Elasticsearch", "ELASTICSEARCH_URL")):
        if os.environ.get(variable):
            parts = urlsplit(os.environ[variable])
            yield name, parts.hostname or "", parts.port or 0


def _answers(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=2):
            return True
    except OSError:
        return False


def run(command: tenants.Command, text: str = "") -> None:
    done = subprocess.run(command, input=text, text=True, check=False)
    if done.returncode:
        raise DemoError(f"`{' '.join(map(str, command[1:]))}` ended with {done.returncode}; its own message is above")


if __name__ == "__main__":
    sys.exit(main())
