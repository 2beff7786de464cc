"""Runs one command for many tenants: by which executor, how many at once, and what is told of it."""

from __future__ import annotations

import argparse
import os
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timezone
from typing import Any, TextIO

from django.core.management.base import CommandError, CommandParser

from tenant_router.fleet import in_process, output
from tenant_router.fleet.interrupts import finishing_first
from tenant_router.fleet.outcomes import Outcome
from tenant_router.fleet.runner import Runner
from tenant_router.management import command_line, reporting
from tenant_router.management.display import Display
from tenant_router.management.executors import EXECUTORS, Caller, Executor, Work, make
from tenant_router.management.operator import INTERRUPTED


def add_arguments(parser: CommandParser) -> None:
    """Declare how a command is run for many tenants."""
    parser.add_argument("--executor", choices=EXECUTORS, default="sequential", help="Default: %(default)s.")
    parser.add_argument("--jobs", type=at_least_one, metavar="N", help="How many tenants at once.")
    policy = parser.add_mutually_exclusive_group()
    policy.add_argument(
        "--keep-going",
        action="store_false",
        default=False,
        dest="fail_fast",
        help="Go on past tenants that fail (the default).",
    )
    policy.add_argument("--fail-fast", action="store_true", default=False, help="Begin no more after one has failed.")
    parser.add_argument(
        "--timeout", type=_seconds, metavar="SECONDS", help="End what takes longer (processes and celery)."
    )
    parser.add_argument("--report", metavar="FILE", help="Write what came of each tenant, as JSON.")
    parser.add_argument("--output-dir", metavar="DIR", help="Collect what is printed in DIR/<tenant>/stdout.txt.")


def execute(caller: Caller, work: Work, tenant_ids: Sequence[str], options: dict[str, Any]) -> None:
    """Do the work for each tenant. Raises ``CommandError`` that names those of whom it is not done."""
    executor = make(caller, work, options)
    report = reporting.opened(options["report"])
    run = _Run(caller, executor, len(tenant_ids), options)
    try:
        _execute(run, executor, work, tenant_ids, options, report)
    except KeyboardInterrupt as error:
        raise CommandError("interrupted again; what was done is done", returncode=INTERRUPTED) from error


def _execute(
    run: _Run,
    executor: Executor,
    work: Work,
    tenant_ids: Sequence[str],
    options: dict[str, Any],
    report: TextIO | None,
) -> None:
    started, begun = datetime.now(timezone.utc), time.monotonic()
    outcomes = run.outcomes(tenant_ids)
    seconds = time.monotonic() - begun
    if report is not None:
        about = {
            "command": [work.name, *work.arguments],
            "executor": options["executor"],
            "jobs": max(1, executor.threads),
            "started": started.isoformat(timespec="seconds"),
            "seconds": round(seconds, 3),
            "interrupted": run.interrupted,
        }
        reporting.write(report, about, outcomes)
    run.end(outcomes, seconds, work)


class _Run:
    """One run: what is shown of it, and how it ends."""

    def __init__(self, caller: Caller, executor: Executor, total: int, options: dict[str, Any]) -> None:
        self._caller, self._executor, self._traceback = caller, executor, options["traceback"]
        self._display = Display(
            caller.out,
            caller.err,
            total,
            quiet=options["verbosity"] < 1,
            folder=reporting.folder(options["output_dir"]),
            lost=lambda: self._runner.finish(),
        )
        self._runner = Runner(
            self._job,
            threads=executor.threads,
            max_failures=0 if options["fail_fast"] else None,
            told=self._display.tell,
            leave_thread=in_process.leave_thread,
            kill=executor.kill,
        )

    @property
    def interrupted(self) -> bool:
        """Whether somebody has stopped it."""
        return self._runner.interrupted and self._display.fault is None

    def outcomes(self, tenant_ids: Sequence[str]) -> list[Outcome]:
        with self._display, output.kept_apart(), finishing_first(self._finish):
            return self._runner.run(tenant_ids)

    def end(self, outcomes: Sequence[Outcome], seconds: float, work: Work) -> None:
        """Say what came of it; raise ``CommandError`` unless all of it is done."""
        self._display.say(reporting.summary(outcomes, seconds))
        program = command_line.program() if self._caller.typed else ["manage.py"]
        said = [] if all(outcome.ok for outcome in outcomes) else [reporting.undone(outcomes, program, work.again)]
        if (fault := self._display.fault) is not None:
            why = getattr(fault, "strerror", None) or fault
            raise CommandError("; ".join([f"what is printed cannot be written: {why}", *said]))
        if self.interrupted:
            raise CommandError("; ".join(["interrupted", *(said or ["all tenants are done"])]), returncode=INTERRUPTED)
        if said:
            raise CommandError(said[0])

    def _finish(self) -> None:
        """Called by a signal's handler, which may have interrupted whatever writes: so it writes by itself."""
        self._runner.finish()
        running = ", ".join(self._runner.running[:5])
        line = f"\ninterrupted: finishing {running or 'what runs'} first; press Ctrl-C again to stop at once\n"
        with suppress(OSError):
            os.write(2, line.encode())

    def _job(self, tenant_id: str) -> object:
        with self._display.streams(tenant_id) as (out, err):
            try:
                return self._executor.run(tenant_id, out, err)
            except Exception:
                if self._traceback:
                    traceback.print_exc(file=err)
                raise


def at_least_one(text: str) -> int:
    """The type of an argument that is a whole number above 0."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of at least 1")
    return int(text)


def _seconds(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 0 < found < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0")
    return found
