"""Processes that follow a store, and what they say they would serve."""

from __future__ import annotations

import json
import os
import signal
from contextlib import ExitStack, contextmanager

from tests.servers import freeze
from tests.tenants import eventually


class Follower:
    """One started ``tests/follower.py``."""

    def __init__(self, process, path):
        self.process, self.path = process, path

    @property
    def pid(self):
        return self.process.pid

    def report(self, timeout=30.0):
        """What it would serve now."""
        self.path.unlink(missing_ok=True)
        os.kill(self.pid, signal.SIGUSR1)
        eventually(self.path.exists, timeout)
        return json.loads(self.path.read_text())

    def signal(self, number):
        os.kill(self.pid, number)

    def stop(self):
        freeze(self.pid)


@contextmanager
def following(project, count, name="report", wait=True, **environment):
    """So many followers of a project, which have all read its store; their reports begin with ``name``."""
    with ExitStack() as stack:
        found = []
        for _ in range(count):
            path = project.directory / f"{name}-{project.service}-{len(found)}.json"
            process = stack.enter_context(project.start("-m", "tests.follower", str(path), **environment))
            found.append(Follower(process, path))
        for follower in found if wait else ():
            follower.process.wait_for("synchronised at revision")
        yield found


def options(**values):
    """``OPTIONS`` of the store for the environment of a process."""
    return {"TESTS_STORE_OPTIONS": json.dumps(values)}
