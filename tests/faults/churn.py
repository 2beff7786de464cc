"""A server whose tenants come, change and go: ``python -m tests.faults.churn DATABASE DATABASE``.

A round creates, updates and deletes a hundred tenants; some of them are used in between, as
requests use them. After every ten rounds it prints a line of JSON.
"""

import gc
import json
import os
import sys
import threading
import time
import uuid

import django
import psutil

django.setup()

from django.core.signals import request_finished, request_started  # noqa: E402 - needs Django
from django.db import connection  # noqa: E402

from tenant_router import runtime  # noqa: E402
from tenant_router.conf import conf  # noqa: E402
from tenant_router.config_store import codec  # noqa: E402
from tenant_router.config_store.base import DELETED, Op  # noqa: E402
from tenant_router.context_decorators import tenant_context_bind  # noqa: E402
from tenant_router.reactive import reflector  # noqa: E402
from tenant_router.runtime.factories import make_store  # noqa: E402

IDS = [f"t{number}.test" for number in range(100)]
USED = IDS[:8]
ROUNDS = 100


def write(state, database=""):
    router = runtime.get()
    record = {"orm_config": {"django_orm": {"default": {"NAME": database}}}}
    ops = [Op(t, state, b"" if state == DELETED else codec.encode(t, record, router.serializer)) for t in IDS]
    revision = WRITER.commit(ops, request_id=uuid.uuid4().hex)
    while router.reflector.head.rev < revision:
        time.sleep(0.001)


def use():
    for tenant_id in USED:
        request_started.send(sender=None)
        with tenant_context_bind(tenant_id), connection.cursor() as cursor:
            cursor.execute("SELECT current_database()")
        request_finished.send(sender=None)


def measured(number):
    gc.collect()
    own = psutil.Process()
    return {
        "round": number,
        "rss": own.memory_info().rss,
        "threads": threading.active_count(),
        "files": len(os.listdir("/proc/self/fd")),
    }


if __name__ == "__main__":
    databases = sys.argv[1:]
    reflector.PACE_MAX = reflector.PACE  # how long it waits between two bursts is not what is looked at
    WRITER = make_store(conf)  # what it opens is not the server's
    runtime.get().serve("web")
    for number in range(1, ROUNDS + 1):
        write("A", databases[0])
        use()
        write("A", databases[1])
        use()
        write(DELETED)
        if number % 10 == 0:
            print(json.dumps(measured(number)), flush=True)
    time.sleep(60)  # the sessions of this process are counted meanwhile
