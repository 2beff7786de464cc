"""The two commands: start the whole demo, and add a tenant to it while it runs."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from demo_stack import services, site, tenants
from demo_stack.environment import chosen_services, environment
from demo_stack.errors import DemoError, Interrupted
from demo_stack.leftovers import note, stop_leftovers
from demo_stack.processes import Processes
from demo_stack.state import State


def up(state: State, port: int, services: str = "") -> int:
    started, chosen = time.monotonic(), chosen_services(services)
    state.prepare()
    with state.locked():
        stop_leftovers(state)
        with site.reserved(port) as listening:
            state.write(services=chosen)
            return _serve(state, listening, started)


def _serve(state: State, listening: Sequence[socket.socket], started: float) -> int:
    processes = Processes(state.logs, partial(note, state))
    processes.listen_to_signals()
    port = listening[0].getsockname()[1]
    sockets = state.sockets()
    state.write(port=port, sockets=str(sockets))
    try:
        names = _start(processes, state, sockets, listening)
        state.write(ready=True)
        _greet(names, port, time.monotonic() - started)
        processes.watch()
    except Interrupted:
        if not state.read().get("ready"):
            raise
    finally:
        _say("stopping ...")
        processes.stop()
        state.finish()
        _say("stopped; nothing is left running")
    return 0


def _start(processes: Processes, state: State, sockets: Path, listening: Sequence[socket.socket]) -> list[str]:
    env = environment(sockets, state.read().get("services"))
    with _step("redis and postgresql"):
        _start_services(processes, state, sockets, env)
    with _step("tenants: configuration, databases, migrations, hospitals"):
        names = tenants.provision_all(processes, sockets, env)
    with _step("gunicorn and celery"):
        _start_site(processes, listening, env, names)
    return names


def _start_services(processes: Processes, state: State, sockets: Path, env: Mapping[str, str]) -> None:
    redis = services.start_redis(processes, state, sockets, env)
    postgresql = services.start_postgresql(processes, state, sockets, env)
    processes.wait_for(redis, lambda: services.redis_answers(sockets))
    processes.wait_for(postgresql, lambda: services.postgresql_answers(sockets))


def _start_site(
    processes: Processes, listening: Sequence[socket.socket], env: Mapping[str, str], names: Sequence[str]
) -> None:
    port = listening[0].getsockname()[1]
    web = site.start_web(processes, listening, env)
    worker = site.start_worker(processes, env)
    processes.wait_for(web, lambda: site.status(port, "localhost", "/healthz") == 200)
    processes.wait_for(worker, lambda: site.worker_answers(env))
    for name in names:
        code = site.status(port, name, "/api/hospitals/")
        if code != 200:
            raise web.failure(f"answers {code} for {name}")


def add_tenant(state: State, tenant: str) -> str:
    """Return the new tenant's address. The processes that serve are not touched."""
    tenants.validated(tenant)
    running = state.read()
    if not state.is_running() or not running.get("ready"):
        raise DemoError("the demo is not running (or still starting): `make demo` in another terminal first")
    processes = Processes(state.logs)
    processes.listen_to_signals()
    sockets = Path(running["sockets"])
    try:
        tenants.provision(processes, sockets, environment(sockets, running.get("services")), tenant)
    finally:
        processes.stop()
    return tenants.url(tenant, running["port"])


@contextmanager
def _step(text: str) -> Iterator[None]:
    started = time.monotonic()
    print(f"  {text} ... ", end="", flush=True)
    try:
        yield
    except BaseException:
        print(flush=True)
        raise
    _say(f"{time.monotonic() - started:.1f} s")


def _greet(names: Sequence[str], port: int, seconds: float) -> None:
    _say(f"\nThe demo is ready ({seconds:.1f} s).\n")
    for name in names:
        _say(f"    {tenants.url(name, port)}")
    hosts = " ".join(names)
    _say(f"\nWith the line `127.0.0.1 {hosts}` in the hosts file, http://{names[0]}:{port}/ and so on answer too.")
    _say("The administration is at /admin/ (user demo, password demo).\n")
    _say("Add a third tenant while this runs, from another terminal:\n")
    _say("    make demo-tenant TENANT=tenant-3.test.com\n\nCtrl-C stops everything.")


def _say(text: str) -> None:
    with suppress(OSError):  # nobody may be reading any more, and the stopping must go on
        print(text, flush=True)
