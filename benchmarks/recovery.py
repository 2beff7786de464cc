"""How long a process needs after each fault of its store, with the default settings: the table of docs/operations.md.

python benchmarks/recovery.py
"""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tenant_router.config_store.base import Op
from tests.processes import Project
from tests.proxy import Proxy
from tests.servers import RedisServer, short_directory

REPEATS = 3
TIMEOUT = 60.0  # seconds


class Case:
    """A server of its own behind a proxy, and a process that follows it."""

    def __init__(self, server: RedisServer, proxy: Proxy, project: Project) -> None:
        from tenant_router import runtime

        self.server, self.proxy, self.project = server, proxy, project
        self.reflector = runtime.get().reflector

    def stale(self) -> float:
        """Seconds until the process says that it is not up to date."""
        began = time.monotonic()
        while self.reflector.ready and time.monotonic() - began < TIMEOUT:
            time.sleep(0.005)
        return time.monotonic() - began

    def recovered(self) -> float:
        """Seconds until a change that is made now is served and the process says that it is ready."""
        began = time.monotonic()
        while True:
            try:
                revision = self.project.put("a.test", self.project.record(f"{uuid.uuid4().hex[:6]}.db"))
                break
            except Exception:
                time.sleep(0.02)
        while self.reflector.pipeline.revision_of("a.test") < revision or not self.reflector.ready:
            assert time.monotonic() - began < TIMEOUT, "it does not recover"
            time.sleep(0.002)
        return time.monotonic() - began


def connections_killed(case: Case) -> float | None:
    for kind in ("pubsub", "normal"):
        case.server.client().execute_command("CLIENT", "KILL", "TYPE", kind)
    return None


def _away(case: Case, seconds: float, begin: Callable[[], None], end: Callable[[], None]) -> float:
    begin()
    stale = case.stale()
    time.sleep(max(0.0, seconds - stale))
    end()
    return stale


def stopped_12_s(case: Case) -> float | None:
    return _away(case, 12, case.server.pause, case.server.resume)


def killed_and_started(case: Case) -> float | None:
    case.server.kill()
    case.server.start()
    return None


def away_10_s(case: Case) -> float | None:
    return _away(case, 10, case.server.kill, case.server.start)


def log_trimmed(case: Case) -> float | None:
    with case.reflector._lock:
        for number in range(20):
            case.project.put(f"t{number}.test", case.project.record("t.db"))
        case.server.client().xtrim(f"{{tr:{case.project.service}}}:log", maxlen=3, approximate=False)
    return None


def rolled_back(case: Case) -> float | None:
    old = case.server.directory / "old.aof"
    shutil.copy(case.server.directory / "appendonly.aof", old)
    for number in range(5):
        case.project.put(f"lost{number}.test", case.project.record("t.db"))
    time.sleep(0.3)
    case.server.kill()
    shutil.copy(old, case.server.directory / "appendonly.aof")
    case.server.start()
    for number in range(7):
        case.project.put(f"new{number}.test", case.project.record("t.db"))
    return None


def emptied_and_loaded(case: Case) -> float | None:
    """Everything is gone, and is loaded again when the process has seen that."""
    store = case.project.store
    records = store.get_many(list(store.index()))
    case.server.client().flushall()
    began = time.monotonic()
    while not case.reflector.refuses:
        assert time.monotonic() - began < TIMEOUT, "it does not see that the store is empty"
        time.sleep(0.01)
    case.project.commit(*(Op(tenant_id, found.state, found.body) for tenant_id, found in records.items()))
    return time.monotonic() - began


def away_60_s(case: Case) -> float | None:
    return _away(case, 60, case.server.kill, case.server.start)


def links_reset(case: Case) -> float | None:
    case.proxy.reset()
    return None


def half_open(case: Case) -> float | None:
    case.proxy.silence()
    return None


def cut_off_12_s(case: Case) -> float | None:
    return _away(case, 12, case.proxy.blackhole, case.proxy.go_on)


FAULTS = (
    connections_killed,
    links_reset,
    half_open,
    log_trimmed,
    killed_and_started,
    away_10_s,
    away_60_s,
    rolled_back,
    emptied_and_loaded,
    stopped_12_s,
    cut_off_12_s,
)


def main() -> None:
    with short_directory() as directory, tempfile.TemporaryDirectory() as folder:
        server = RedisServer(directory, "--appendonly", "yes", "--appendfsync", "always")
        server.start()
        with closing(Proxy(server.port)) as proxy:
            project = Project(server, Path(folder))
            project.put("a.test", project.record("a.db"))
            for number in range(40):  # or the five that a rollback loses would alarm
                project.put(f"t{number}.test", project.record("t.db"))
            # among them DJANGO_SETTINGS_MODULE
            os.environ |= {**project.environment, "TESTS_IDLE": "3"}
            os.environ["TESTS_REDIS_URL"] = f"redis://127.0.0.1:{proxy.port}/0"
            _start()
            case = Case(server, proxy, project)
            print(f"{'fault':24} {'stale after':>12} {'back after, median':>18} {'longest':>8}   (seconds)")
            for fault in FAULTS:
                _measured(fault, case)
        server.stop()


def _start() -> None:
    import logging

    import django

    django.setup()
    logging.disable(logging.CRITICAL)
    from tenant_router import runtime

    runtime.get().serve("web")


def _measured(fault: Callable[[Case], float | None], case: Case) -> None:
    stale, recovered = [], []
    for _ in range(REPEATS):
        case.recovered()
        time.sleep(1.0)
        found = fault(case)
        if found is not None:
            stale.append(found)
        recovered.append(case.recovered())
    shown = f"{statistics.median(stale):.2f}" if stale else "never"
    print(f"{fault.__name__:24} {shown:>12} {statistics.median(recovered):18.2f} {max(recovered):8.2f}", flush=True)


if __name__ == "__main__":
    main()
