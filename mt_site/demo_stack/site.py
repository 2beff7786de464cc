"""The site's own processes: gunicorn and a Celery worker."""

from __future__ import annotations

import errno
import http.client
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress

from celery import Celery

from demo_stack.errors import DemoError
from demo_stack.processes import Child, Processes

LOOPBACK = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))


@contextmanager
def reserved(port: int) -> Iterator[list[socket.socket]]:
    """Bind the port before anything starts; gunicorn is handed the sockets and listens on them."""
    with ExitStack() as stack:
        yield [stack.enter_context(bound) for bound in _bind(port)]


def _bind(port: int) -> list[socket.socket]:
    """Both loopback addresses, as browsers resolve ``*.localhost`` to either."""
    sockets: list[socket.socket] = []
    for family, address in LOOPBACK:
        try:
            bound = socket.socket(family, socket.SOCK_STREAM)
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind((address, sockets[0].getsockname()[1] if sockets else port))
            # Once bound, refuse a second demo that would share the port until one of them listens.
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        except OSError as error:
            if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT) and family is socket.AF_INET6:
                continue
            reason = f"port {port} cannot be used ({error.strerror})"
            raise DemoError(f"{reason}; choose another: make demo PORT=9501") from None
        sockets.append(bound)
    return sockets


def start_web(processes: Processes, sockets: Sequence[socket.socket], env: Mapping[str, str]) -> Child:
    numbers = [bound.fileno() for bound in sockets]
    binds = [word for number in numbers for word in ("--bind", f"fd://{number}")]
    return processes.start("gunicorn", [sys.executable, "-m", "gunicorn", *binds], env, pass_fds=numbers)


def start_worker(processes: Processes, env: Mapping[str, str]) -> Child:
    pool = ["--pool", "prefork", "--concurrency", "2", "--without-mingle", "--without-gossip"]
    command = [sys.executable, "-m", "celery", "-A", "mt_site", "worker", "--loglevel", "INFO", *pool]
    return processes.start("celery", command, env)


def status(port: int, host: str, path: str) -> int:
    """The status of one answer; 0 for none."""
    with suppress(OSError, http.client.HTTPException):
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
            connection.request("GET", path, headers={"Host": f"{host}:{port}"})
            return connection.getresponse().status
    return 0


def worker_answers(env: Mapping[str, str]) -> bool:
    with Celery(broker=env["CELERY_BROKER_URL"]) as app:
        return bool(app.control.ping(timeout=0.3))
