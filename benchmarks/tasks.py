"""What Celery's messages and tasks cost more: publishing, and a task that asks its database once.

python benchmarks/tasks.py
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import psutil
import report
from celery import Celery
from sites import HERE, OURS, PLAIN, environment, on_postgres, registered, running, seconds
from variants import Variant, answer, compare

from tests.servers import PostgresServer, RedisServer

CALLS = 20_000
TASKS, TURNS = 400, 9  # tasks of one turn
FEW, MANY = 8, 400  # tenants


def site(system: str, database: dict[str, Any]) -> None:
    """The measured process: one request is one task, traced as a worker does."""
    import django
    from django.conf import settings

    ours = system == OURS
    settings.configure(
        BENCH_SYSTEM="plain",
        INSTALLED_APPS=[*(["tenant_router"] if ours else []), "peer_app"],
        DATABASES={"default": {**database, "NAME": "template"} if ours else database},
        DEFAULT_AUTO_FIELD="django.db.models.AutoField",
        DATABASE_ROUTERS=["tenant_router.orm_backends.django_orm.router.DjangoOrmRouter"] if ours else [],
        TENANT_ROUTER_SERVICE_NAME="bench",
        TENANT_ROUTER_CONFIG_STORE_SETTINGS={"BACKEND": "tenant_router.config_store.backends.memory.MemoryStore"},
        TENANT_ROUTER_ORM_SETTINGS={"django_orm": {"SETTINGS_KEY": "DATABASES"}},
    )
    django.setup()
    from celery import Celery, signals

    app = Celery("bench", broker="memory://", set_as_default=True)
    if not ours:
        # Receivers that do nothing are what ours are compared with.
        for signal in (signals.before_task_publish, signals.task_prerun, signals.task_postrun):
            signal.connect(_nothing, weak=False)
    else:
        from tenants import on_databases, register_here

        register_here(on_databases([database["NAME"]]))
    from peer_app.models import Note

    @app.task
    def read() -> str:
        return str(Note.objects.get(pk=1).text)

    app.finalize()
    headers = {"tenant_id": "t0.test"} if ours else {}

    def run(number: int) -> None:
        assert read.apply(headers=headers).result == "of 0"

    answer(run, lambda: 0)


def _nothing(**kwargs: object) -> None:
    """An empty receiver."""


def publishing() -> None:
    """The receiver of ``before_task_publish``, with a tenant bound, against one that does nothing."""
    from site_of_one import make_tenant
    from timing import compare as compare_calls

    make_tenant()
    from celery import signals
    from celery.utils.dispatch import Signal

    from tenant_router.context_decorators import tenant_context_bind

    empty = Signal(name="empty", providing_args={"headers"})
    empty.connect(_nothing, weak=False)
    with tenant_context_bind("bench.test"):
        cost = compare_calls(
            lambda: signals.before_task_publish.send(sender="task", headers={}, body=()),
            lambda: empty.send(sender="task", headers={}, body=()),
            calls=CALLS,
        )
    report.row("Celery", "publish, against an empty receiver", cost.ratio, goal="<= 3")


@contextmanager
def worker(system: str, site: dict[str, str]) -> Iterator[psutil.Process]:
    """A real worker with one thread, so that its processor time is that of its tasks."""
    site = {**site, "PYTHONWARNINGS": "ignore"}  # that it may not run as root, on a machine that has no other user
    command = ["-m", "celery", "-A", "worker_site", "worker", "-P", "solo", "-l", "CRITICAL", "-n", f"{system}@bench"]
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    started = subprocess.Popen([sys.executable, *command, *quiet], cwd=HERE, env=site, stdout=subprocess.DEVNULL)
    try:
        yield psutil.Process(started.pid)
    finally:
        started.terminate()
        started.wait(30)


def work(server: RedisServer, process: psutil.Process, system: str, tenants: int) -> float:
    """Seconds of processor time of a worker for one turn of tasks, the tenants in turn."""
    before, redis = seconds(process), server.client()
    with Celery("bench", broker=server.url) as publisher:
        for number in range(TASKS):
            tenant = number % tenants
            headers = {"tenant_id": f"t{tenant}.test"} if system == OURS else {}
            publisher.send_task("read", [tenant], queue=system, headers=headers)
    while redis.llen(system) or redis.hlen("unacked"):
        if process.status() == psutil.STATUS_ZOMBIE:
            raise SystemExit(f"the worker of {system} is gone")
        time.sleep(0.01)
    return seconds(process) - before


def real_workers(tenants: int, what: str, **options: Any) -> None:
    """The same task, of each tenant on its database in turn, from a broker to a worker: by turns."""
    with ExitStack() as stack:
        postgres, redis = stack.enter_context(running(PostgresServer)), stack.enter_context(running(RedisServer))
        databases = on_postgres(postgres, tenants, **options)
        service = registered(redis, databases, 1_000)
        sites = {system: environment(system, databases, redis, service) for system in (PLAIN, OURS)}
        workers = {system: stack.enter_context(worker(system, site)) for system, site in sites.items()}
        turns = [{system: work(redis, one, system, tenants) for system, one in workers.items()} for _ in range(TURNS)]
    ratio = statistics.median(turn[OURS] / turn[PLAIN] for turn in turns[1:])  # the first opens connections
    report.row("Celery", f"a worker's processor time for such a task{what}", ratio, goal="<= 1.05")


def main() -> None:
    if len(sys.argv) == 3:
        site(sys.argv[1], json.loads(sys.argv[2]))
        return
    with running(PostgresServer) as server:
        database = json.dumps(on_postgres(server, 1)[0])
        cost = compare([Variant("tasks.py", system, database) for system in (PLAIN, OURS)])[OURS]
    report.row("Celery", "a task that queries, inline: processor time", cost.micros_ratio, goal="<= 1.05")
    report.row("Celery", "a task that queries, inline: calls", cost.calls_ratio, kind=report.COUNT)
    publishing()
    if not os.environ.get("BENCH_QUICK"):
        real_workers(FEW, "")
        real_workers(MANY, f", of {MANY} tenants, each of which connects", CONN_MAX_AGE=0)


if __name__ == "__main__":
    main()
