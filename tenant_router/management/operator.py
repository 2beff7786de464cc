"""What the operators' commands have in common: they ask before they give up data, and Ctrl-C is one line."""

from __future__ import annotations

import argparse
import sys
from typing import Any, TextIO

from django.core.management.base import BaseCommand, CommandError

from tenant_router.identity import RULE
from tenant_router.management.output import Output

USAGE = 2  # exit code: it was called wrongly, and nothing was changed
INTERRUPTED = 130  # exit code, as shells have it: 128 and the number of SIGINT


class OperatorCommand(BaseCommand):
    """Base of the commands that look at the config store itself and belong to no tenant.

    ``without_tenant``: why the command takes no ``--tenant-id``. ``so_far``: what is true if it is interrupted now.
    """

    without_tenant = "is about all tenants"
    so_far = "nothing was changed"

    def __init__(self, stdout: TextIO | None = None, stderr: TextIO | None = None, **kwargs: Any) -> None:
        super().__init__(stdout, stderr, **kwargs)
        style = self.stderr.style_func
        self.stdout, self.stderr = Output(stdout or sys.stdout), Output(stderr or sys.stderr)
        self.stderr.style_func = style

    def run_from_argv(self, argv: list[str]) -> None:
        """See ``BaseCommand``."""
        try:
            super().run_from_argv(argv)
        finally:
            for stream in (self.stdout, self.stderr):
                if isinstance(stream, Output):
                    stream.forget()

    def execute(self, *args: Any, **options: Any) -> Any:
        """Run it; an interruption is one line that says what was done. Raises ``CommandError``."""
        try:
            done = super().execute(*args, **options)
        except KeyboardInterrupt as error:
            raise CommandError(f"interrupted: {self.so_far}", returncode=INTERRUPTED) from error
        lost = getattr(self.stdout, "lost", None)
        if lost is not None and not isinstance(lost, BrokenPipeError):  # who reads no more has read enough
            raise CommandError(f"it is done, and not all that it says could be written: {lost}")
        return done


def tenant_name(text: str) -> str:
    """An argument: what a tenant may be called in a store, where names are UTF-8. Raises ``ArgumentTypeError``."""
    try:
        text.encode()
    except UnicodeEncodeError:  # bytes of the command line that are none
        raise argparse.ArgumentTypeError(f"{text!r} is no tenant id: {RULE}") from None
    return text


def confirm(consequence: str, *, answer: str, otherwise: str, yes: bool) -> None:
    """Return if the operator said ``yes`` on the command line, or types ``answer`` now.

    ``consequence``: what is about to happen, a sentence without its full stop. ``otherwise``: what is true if
    it does not. Raises ``CommandError``, at once where there is no terminal to ask on: input that comes from a
    pipe or a file was meant for something else, and is no consent.
    """
    if yes:
        return
    typed = ask(f"{consequence}. Type {answer!r} to go on: ", otherwise)
    if typed is None:
        raise CommandError(
            f"{consequence}: give --yes, since there is no terminal to ask on ({otherwise})", returncode=USAGE
        )
    if typed.lower() != answer:
        raise CommandError(otherwise)


def ask(question: str, otherwise: str) -> str | None:
    """What is typed in answer to ``question``; ``None``, at once, where there is no terminal to ask on.

    ``otherwise``: what is true if nobody answers. Raises ``CommandError`` on Ctrl-C.
    """
    shown = _terminal()
    if shown is None:
        return None
    try:
        shown.write(question)
        shown.flush()
        return sys.stdin.readline().strip()
    except KeyboardInterrupt as error:
        shown.write("\n")  # the line that was asked on
        raise CommandError(f"interrupted: {otherwise}", returncode=INTERRUPTED) from error


def somebody_types() -> bool:
    """Whether the standard input is a terminal."""
    return _is_terminal(sys.stdin)


def _terminal() -> TextIO | None:
    """Where a question is seen, if it can be answered: not the output, which may go to a file."""
    if not somebody_types():
        return None
    return next((stream for stream in (sys.stderr, sys.stdout) if _is_terminal(stream)), None)


def _is_terminal(stream: TextIO | None) -> bool:
    # Python has None for a stream that was closed before it started, and refuses to ask one that was closed since.
    return stream is not None and not stream.closed and stream.isatty()
