"""Run by a test: more clusters at work than clients, in greenlets. Prints how many units of work were done, and how."""

# ruff: noqa: E402 - nothing may be imported before this
from gevent import monkey

monkey.patch_all()

import sys
import time
from contextlib import contextmanager

import gevent
from django.conf import settings
from gevent.pool import Pool

settings.configure()

from tenant_router import context as _context
from tenant_router.orm_backends.mongo.manager import MongoManager
from tenant_router.tenant_context import TenantContext

LIMIT, CLUSTERS, UNITS, AT_ONCE = 4, 12, 300, 40


class Manager(MongoManager):
    """A manager of no library in particular."""


@contextmanager
def bound(context):
    before = _context.enter(context)
    try:
        yield context.parts["x_orm"]["default"]
    finally:
        _context.leave(before)


def main(url):
    manager = Manager("x_orm", {"default": {"CONN_URL": f"{url}/unused"}}, {"MAX_CLIENTS": LIMIT})
    contexts = []
    for number in range(CLUSTERS):
        config = {"NAME": f"gevent{number}", "OPTIONS": {"appName": f"g{number}", "maxPoolSize": 5}}
        contexts.append(
            TenantContext(f"t{number}", 1, {"x_orm": manager.prepare(f"t{number}", {"default": config}, None)})
        )
    done, most = [], []

    def work(number):
        with bound(contexts[number % CLUSTERS]) as home:
            assert home.database["things"].count_documents({}) == 0
            assert home.database.name == f"gevent{number % CLUSTERS}"
            gevent.sleep(0)
            assert home.database.command("ping")["ok"] == 1
            most.append(manager.clients.open_count())
        done.append(number)

    began = time.monotonic()
    with gevent.Timeout(60):
        Pool(AT_ONCE).map(work, range(UNITS))
    print(len(done), max(most), time.monotonic() - began < 60)
    manager.uninstall()


if __name__ == "__main__":
    main(sys.argv[1])
