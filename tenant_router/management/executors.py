"""The four ways in which a command is run for many tenants."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TextIO

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, OutputWrapper

from tenant_router.fleet import in_process, output
from tenant_router.fleet.processes import Processes
from tenant_router.management import command_line
from tenant_router.management.operator import USAGE
from tenant_router.tenant_context import TenantContext

EXECUTORS = ("sequential", "threads", "processes", "celery")
TIMED = ("processes", "celery")  # those that can end what takes too long


class Work(NamedTuple):
    """One command for any tenant. ``name`` and ``arguments``: its command line, as the bound tenant's.

    ``here(tenant, out, err)``: runs it in this process, bound to the tenant. ``again(selectors)``: the words after
    ``manage.py`` that run it for other tenants.
    """

    name: str
    arguments: Sequence[str]
    here: Callable[[TenantContext, TextIO, TextIO], object]
    again: Callable[[list[str]], list[str]]


class Caller(NamedTuple):
    """Where a command shows what comes of it; ``typed``: it was called from the command line."""

    out: OutputWrapper
    err: OutputWrapper
    typed: bool

    @classmethod
    def of(cls, command: BaseCommand) -> Caller:
        """That of a command which runs now."""
        return cls(command.stdout, command.stderr, getattr(command, "_called_from_command_line", False))


class Executor(NamedTuple):
    """``run(tenant_id, out, err)`` does the work for one tenant, in one of ``threads`` threads."""

    run: Callable[[str, TextIO, TextIO], object]
    threads: int
    kill: Callable[[], None] | None = None


def make(caller: Caller, work: Work, options: dict[str, Any]) -> Executor:
    """What ``--executor``, ``--jobs`` and ``--timeout`` ask for. Raises ``CommandError`` where that cannot be had."""
    name, jobs, timeout = options["executor"], options["jobs"], options["timeout"]
    if timeout is not None and name not in TIMED:
        raise CommandError(
            f"--timeout needs --executor {' or '.join(TIMED)}: nothing can end a command in this process",
            returncode=USAGE,
        )
    if name == "processes":
        return _in_processes(caller, work, jobs or in_process.JOBS, timeout)
    if name == "celery":
        return _on_workers(work, jobs, timeout)

    def here(tenant_id: str, out: TextIO, err: TextIO) -> object:
        with output.printing_to(out, err):
            return in_process.as_tenant(tenant_id, lambda tenant: work.here(tenant, out, err))

    return Executor(here, _threads(caller, jobs) if name == "threads" else 0)


def _threads(caller: Caller, jobs: int | None) -> int:
    wanted = jobs or in_process.JOBS
    threads = in_process.affordable(wanted)
    if jobs is not None and threads < wanted:
        caller.err.write(f"note: {threads} at once and not {jobs}: MAX_OPEN_CONNECTIONS is less", style_func=str)
    return threads


def _in_processes(caller: Caller, work: Work, jobs: int, timeout: float | None) -> Executor:
    environment = {name: value for name, value in os.environ.items() if name != "TENANT_ID"}
    environment["DJANGO_SETTINGS_MODULE"] = str(settings.SETTINGS_MODULE)
    manage = command_line.program() if caller.typed else ["-m", "django"]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))  # what --pythonpath has added, too
    interpreter = [sys.executable, *(f"-W{each}" for each in sys.warnoptions), *manage]
    processes = Processes(environment, timeout)

    def run(tenant_id: str, out: TextIO, err: TextIO) -> None:
        processes.run([*interpreter, work.name, f"--tenant-id={tenant_id}", *work.arguments], out, err)

    return Executor(run, jobs, processes.kill)


def _on_workers(work: Work, jobs: int | None, timeout: float | None) -> Executor:
    try:
        from tenant_router.celery import remote_commands
    except ModuleNotFoundError as error:
        if error.name != "celery":
            raise
        raise CommandError("--executor celery needs Celery: pip install 'tenant_router[celery]'") from error
    remote_commands.check_application()
    remote_commands.check_listed(work.name)
    remote = remote_commands.Remote(work.name, work.arguments, timeout)
    return Executor(remote.run, jobs or remote_commands.JOBS, remote.kill)
