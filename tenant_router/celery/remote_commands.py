"""Management commands on workers: the task that runs one for its tenant, and how its outcome is collected.

Facts relied on, each with a test: ``shared_task`` is known to whatever application the project makes; a task's own
``ignore_result`` wins over the application's; a signature is published with the tenant that is bound.
"""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TextIO

from celery import current_app, shared_task
from django.core.management import call_command
from django.core.management.base import CommandError

from tenant_router.conf import conf
from tenant_router.conf.settings import FLEET
from tenant_router.config_store.base import ACTIVE, STATE_NAMES
from tenant_router.fleet.outcomes import TIMED_OUT, JobFailed, failed
from tenant_router.fleet.output import printing_to
from tenant_router.managers import tenant_context_manager

JOBS = 32  # tasks that wait for a worker at once, unless somebody says otherwise
LONGEST = 64 * 1024  # characters that come back of each of a command's two streams
LOOK = 0.1  # seconds between two looks for a result
TASK = "tenant_router.run_command"


def run_command(name: str, arguments: Sequence[str]) -> dict[str, Any]:
    """On a worker, as the bound tenant: run a command that ``CELERY_COMMANDS`` lists, and tell what came of it."""
    out, err = Bounded(), Bounded()
    error: BaseException | None = None
    try:
        check_listed(name)
        with printing_to(out, err):
            call_command(name, *arguments, stdout=out, stderr=err)
    except (Exception, SystemExit) as raised:
        error = raised
    outcome = failed("", error, 0.0) if error else None
    ok = outcome is None or outcome.ok
    return {
        "exit_code": 0 if ok or outcome is None else outcome.exit_code,
        "error": "" if outcome is None else outcome.line,
        "out": out.text,
        "err": err.text,
    }


_task: Any = shared_task(name=TASK, ignore_result=False)(run_command)


def check_listed(name: str) -> None:
    """Raise ``CommandError`` for a command that workers do not run."""
    if name not in conf.fleet["CELERY_COMMANDS"]:
        raise CommandError(f"workers do not run {name!r}: {FLEET}['CELERY_COMMANDS'] does not list it")


def check_application() -> None:
    """Raise ``CommandError`` where no task could be sent, or no result come back."""
    if current_app.main == "default":  # what Celery makes where nobody has made one
        raise CommandError("the project has no Celery application: import it in the project's __init__.py")
    if type(current_app.backend).__name__ == "DisabledBackend":
        raise CommandError("Celery keeps no results here, so no outcome would come back: set its result_backend")


class Remote:
    """Sends one task per tenant and waits for its result. ``timeout``: seconds from sending a task to its end."""

    def __init__(self, name: str, arguments: Sequence[str], timeout: float | None) -> None:
        self._name, self._arguments, self._timeout = name, list(arguments), timeout
        self._stopped = threading.Event()

    def run(self, tenant_id: str, out: TextIO, err: TextIO) -> None:
        """Run the command for a tenant, and what it printed into ``out`` and ``err``. Raises ``JobFailed``."""
        state = tenant_context_manager.state_of(tenant_id)
        if state not in (ACTIVE, None):
            raise JobFailed(f"it is {STATE_NAMES.get(state, 'unreadable')}: workers run tasks of active tenants")
        from tenant_router.fleet.in_process import as_tenant  # for who sends; workers import this file, too

        as_tenant(tenant_id, lambda tenant: self._collect(self._send(), out, err))

    def kill(self) -> None:
        """Have workers start none of the tasks that wait, and stop those that they run."""
        self._stopped.set()

    def _send(self) -> Any:
        limits = {} if self._timeout is None else {"time_limit": self._timeout, "expires": self._timeout}
        return _task.apply_async((self._name, self._arguments), **limits)

    def _collect(self, result: Any, out: TextIO, err: TextIO) -> None:
        if not self._wait(result.ready):
            with suppress(Exception):  # the broker may be what is away
                result.revoke(terminate=True)
            if self._stopped.is_set():
                raise JobFailed("it was stopped", None)
            raise JobFailed(f"no worker has done it within {self._timeout:g} s (--timeout)", None, TIMED_OUT)
        found, state = result.result, result.state
        result.forget()
        if state != "SUCCESS":
            status = TIMED_OUT if type(found).__name__ in ("TimeLimitExceeded", "TaskRevokedError") else "failed"
            raise JobFailed(f"{type(found).__name__}: {found}", None, status)
        out.write(found["out"])
        err.write(found["err"])
        if found["exit_code"]:
            raise JobFailed(found["error"], found["exit_code"])

    def _wait(self, ready: Callable[[], bool]) -> bool:
        deadline = None if self._timeout is None else time.monotonic() + self._timeout
        while not ready():
            if self._stopped.wait(LOOK) or (deadline is not None and time.monotonic() >= deadline):
                return False
        return True


class Bounded(io.TextIOBase):
    """Text of which the beginning and the end are kept, as much of each."""

    def __init__(self, longest: int = LONGEST) -> None:
        self._half, self._first, self._last, self._written = longest // 2, "", "", 0

    def writable(self) -> bool:
        """It is written to."""
        return True

    def write(self, text: str) -> int:
        """Keep what there is room for."""
        self._written += len(text)
        room = self._half - len(self._first)
        self._first += text[:room]
        self._last = (self._last + text[room:])[-self._half :]
        return len(text)

    @property
    def text(self) -> str:
        """What was kept, and a line between that says how much was not."""
        cut = self._written - len(self._first) - len(self._last)
        return self._first + (f"\n... {cut} characters are left out ...\n" if cut else "") + self._last
