"""A process that follows the store as a web server does, and serves nobody: ``python -m tests.follower REPORT``.

On SIGUSR1 it writes to REPORT what it would serve, as JSON; then it goes on.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

import django

# A report is made of what this process does when it has started, and not in the middle of that, under its locks.
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
django.setup()

from tenant_router import runtime  # noqa: E402 - needs Django
from tenant_router.exceptions import TenantUnresolved  # noqa: E402
from tenant_router.managers import tenant_context_manager  # noqa: E402


def database(tenant_id):
    try:
        context = tenant_context_manager.get_by_id(tenant_id)
    except TenantUnresolved as error:
        return type(error).__name__
    return [context.revision, Path(context.parts["django_orm"]["default"].settings["NAME"]).name]


def report(*_):
    reflector = runtime.get().reflector
    found = {
        "pid": os.getpid(),
        "state": reflector.state,
        "head": reflector.head,
        "tenants": {tenant_id: database(tenant_id) for tenant_id in tenant_context_manager.get_known_ids()},
    }
    path = Path(sys.argv[1])
    path.with_suffix(".part").write_text(json.dumps(found))
    path.with_suffix(".part").rename(path)


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, report)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    runtime.get().serve("web")
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
    while True:
        time.sleep(3600)
