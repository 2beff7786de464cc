"""A process that follows the store as a web server does, and serves nobody: ``python -m tests.follower REPORT``.

On SIGUSR1 it writes to REPORT what it would serve, as JSON; then it goes on. On SIGUSR2 it forks: its child says
in a file of its own, ``REPORT.<pid>``, what it serves when it says READY, or after a while, and ends.
"""

import json
import os
import signal
import sys
import time
import warnings
from pathlib import Path

import django

# A report is made of what this process does when it has started, and not in the middle of that, under its locks.
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGUSR2})
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


def fork(*_):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # threads are running, which is the point
        pid = os.fork()
    if pid:
        return
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        asked = json.loads(Path(sys.argv[1]).with_suffix(".asked").read_text())
        database("nobody.test")  # it serves from here on
        deadline = time.monotonic() + WHILE
        while runtime.get().reflector.state != "READY" and time.monotonic() < deadline:
            time.sleep(0.01)
        sys.argv[1] = f"{sys.argv[1]}.{os.getpid()}"
        report(asked=asked)
    finally:
        os._exit(0)


WHILE = 20.0  # seconds


def report(*_, **more):
    reflector = runtime.get().reflector
    found = {
        **more,
        "pid": os.getpid(),
        "at": time.time(),
        "state": reflector.state,
        "head": reflector.head,
        "tenants": {tenant_id: database(tenant_id) for tenant_id in tenant_context_manager.get_known_ids()},
    }
    path = Path(sys.argv[1])
    part = path.with_name(f"{path.name}.part")
    part.write_text(json.dumps(found))
    part.rename(path)


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, report)
    signal.signal(signal.SIGUSR2, fork)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    runtime.get().serve("web")
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1, signal.SIGUSR2})
    while True:
        time.sleep(3600)
