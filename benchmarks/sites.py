"""What the benchmarks with real processes share: databases, tenants in Redis, started servers, what they use."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, TypeVar

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tenants import on_databases, register

from tenant_router.config_store.backends.redis import RedisStore
from tenant_router.config_store.serializers.pickle import PickleSerializer
from tests.servers import PostgresServer, RedisServer, free_port, short_directory

HERE = Path(__file__).resolve().parent
PLAIN, OURS = "plain", "tenant_router"
Server = TypeVar("Server", PostgresServer, RedisServer)


@contextmanager
def running(kind: type[Server]) -> Iterator[Server]:
    """A server of its own, in a folder of its own."""
    with short_directory() as directory:
        server = kind(directory)
        server.start()
        try:
            yield server
        finally:
            server.stop()


def on_postgres(server: PostgresServer, count: int, **options: Any) -> list[dict[str, Any]]:
    """Databases with one row each that says whose it is."""
    made = []
    for number in range(count):
        name = f"bench_{number}"
        server.create_database(name)
        with server.connect(name) as connection:
            connection.execute("CREATE TABLE peer_app_note (id serial PRIMARY KEY, text text)")
            connection.execute("INSERT INTO peer_app_note (text) VALUES (%s)", [f"of {number}"])
            connection.execute("ANALYZE")
        made.append({"ENGINE": "django.db.backends.postgresql", "NAME": name, "HOST": server.host, "USER": "postgres"})
    return [{**database, "CONN_MAX_AGE": None, **options} for database in made]


def on_sqlite(folder: Path, count: int) -> list[dict[str, Any]]:
    """The same as files in ``folder``."""
    import sqlite3

    made = []
    for number in range(count):
        file = folder / f"{number}.sqlite3"
        with closing(sqlite3.connect(file)) as connection, connection:
            connection.execute("CREATE TABLE peer_app_note (id integer PRIMARY KEY, text text)")
            connection.execute("INSERT INTO peer_app_note VALUES (1, ?)", (f"of {number}",))
        made.append({"ENGINE": "django.db.backends.sqlite3", "NAME": str(file), "CONN_MAX_AGE": None})
    return made


def registered(server: RedisServer, databases: list[dict[str, Any]], count: int) -> str:
    """Put ``count`` tenants into the config store of a new service; the first ones have ``databases``."""
    service = f"bench-{uuid.uuid4().hex[:8]}"
    with closing(RedisStore(service, {"URL": server.url})) as store:
        register(store, PickleSerializer(), on_databases([database["NAME"] for database in databases], count))
    return service


def commands(server: RedisServer) -> float:
    """How many commands the server has got so far, without those of this function's own connection."""
    found: Any = server.client().info("commandstats")
    own = ("cmdstat_info", "cmdstat_hello", "cmdstat_client")
    return float(sum(value["calls"] for name, value in found.items() if not name.startswith(own)))


def environment(
    system: str, databases: list[dict[str, Any]], server: RedisServer, service: str = "", asgi: bool = False
) -> dict[str, str]:
    """What ``served_site`` reads."""
    return {
        **os.environ,
        "PYTHONDONTWRITEBYTECODE": "",  # as on a server: nobody compiles the package at each start
        "PYTHONPYCACHEPREFIX": str(HERE.parent / ".bench" / "pycache"),
        "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent)]),
        "BENCH_SYSTEM": system,
        "BENCH_DATABASES": json.dumps(databases),
        "BENCH_REDIS": server.url,
        "BENCH_SERVICE": service,
        "BENCH_ASGI": "1" if asgi else "",
    }


def seconds(process: psutil.Process) -> float:
    """Processor time of a process so far."""
    used = process.cpu_times()
    return float(used.user + used.system)


class Worker:
    """The one worker process of a server, and its address."""

    def __init__(self, process: psutil.Process, port: int) -> None:
        self.process, self.port = process, port

    @property
    def seconds(self) -> float:
        """Processor time so far."""
        return seconds(self.process)

    @property
    def memory(self) -> int:
        """PSS in bytes: what is shared with others is counted in part."""
        return int(self.process.memory_full_info().pss)

    def visit(self, hosts: list[str], path: str = "/") -> None:
        """One request to each."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        for host in hosts:
            connection.request("GET", path, headers={"Host": host})
            response = connection.getresponse()
            body = response.read()
            assert body == b'{"text": "of %s"}' % host[1:].partition(".")[0].encode(), body
        connection.close()


@contextmanager
def served(environment: dict[str, str], *, asgi: bool = False) -> Iterator[Worker]:
    """One gunicorn worker with threads, or one uvicorn."""
    port = free_port()
    command = [sys.executable, "-m"]
    if asgi:
        command += [
            "uvicorn",
            "served_site:application",
            "--port",
            str(port),
            "--log-level",
            "critical",
            "--no-access-log",
        ]
    else:
        command += ["gunicorn", "served_site:application", "-b", f"127.0.0.1:{port}", "-w", "1", "-k", "gthread"]
        command += ["--threads", "4", "--keep-alive", "60", "--log-level", "critical", "--no-control-socket"]
    started = subprocess.Popen(command, cwd=HERE, env=environment)
    try:
        yield Worker(_worker(psutil.Process(started.pid), port, asgi), port)
    finally:
        started.terminate()
        started.wait(30)


def _worker(process: psutil.Process, port: int, asgi: bool) -> psutil.Process:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        found = process if asgi else next(iter(process.children()), None)
        try:
            connection = HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/nothing", headers={"Host": "t0.test"})
            connection.getresponse().read()
            if found is not None:
                return found
        except OSError:
            time.sleep(0.1)
        if process.status() == psutil.STATUS_ZOMBIE:
            break
    raise SystemExit(f"{process} does not serve")
