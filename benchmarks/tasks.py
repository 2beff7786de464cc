"""What Celery's messages and tasks cost more: publishing, and a task that asks its database once.

python benchmarks/tasks.py
"""

from __future__ import annotations

import json
import sys
from typing import Any

import report
from sites import OURS, PLAIN, on_postgres, running
from variants import Variant, answer, compare

from tests.servers import PostgresServer

CALLS = 20_000


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


def main() -> None:
    if len(sys.argv) == 3:
        site(sys.argv[1], json.loads(sys.argv[2]))
        return
    with running(PostgresServer) as server:
        database = json.dumps(on_postgres(server, 1)[0])
        cost = compare([Variant("tasks.py", system, database) for system in (PLAIN, OURS)])[OURS]
    report.row("Celery", "a task that queries: processor time", cost.micros_ratio, goal="<= 1.05")
    report.row("Celery", "a task that queries: calls", cost.calls_ratio, kind=report.COUNT)
    publishing()


if __name__ == "__main__":
    main()
