"""What came of the work for one tenant."""

from __future__ import annotations

from typing import Any, NamedTuple

from django.core.management.base import CommandError

from tenant_router.exceptions import printable
from tenant_router.log import redact

OK, FAILED, TIMED_OUT = "ok", "failed", "timed out"
STOPPED, NOT_RUN = "stopped", "not run"  # while it ran, and before it began
LONGEST = 500  # characters of an error's line


class JobFailed(Exception):
    """Work that was done elsewhere failed: the line that says why, the exit code if there is one, and the status."""

    def __init__(self, line: str, exit_code: int | None = 1, status: str = FAILED) -> None:
        super().__init__(line)
        self.line, self.exit_code, self.status = line, exit_code, status


class Outcome(NamedTuple):
    """What came of the work for one tenant.

    ``status``: ``ok``, ``failed``, ``timed out``, ``stopped`` (while it ran) or ``not run``. ``seconds``: how long it
    took. ``value``: what it returned. ``error``: what it raised.
    """

    tenant_id: str
    status: str
    seconds: float = 0.0
    value: Any = None
    error: BaseException | None = None

    @property
    def ok(self) -> bool:
        """Whether it was done."""
        return self.status == OK

    @property
    def exit_code(self) -> int | None:
        """That of a command; ``None`` for one that did not end."""
        if self.ok:
            return 0
        if isinstance(self.error, SystemExit):
            return self.error.code if isinstance(self.error.code, int) else 1
        if isinstance(self.error, CommandError):
            return self.error.returncode
        if isinstance(self.error, JobFailed):
            return self.error.exit_code
        return None if self.error is None else 1

    @property
    def line(self) -> str:
        """The error in one line, without secrets; empty where there is none."""
        if self.error is None:
            return ""
        text = printable(redact(" ".join(str(self.error).split()))[:LONGEST])
        if isinstance(self.error, JobFailed):
            return text
        name = type(self.error).__name__
        return f"{name}: {text}" if text else name

    def as_dict(self) -> dict[str, Any]:
        """For programs."""
        return {
            "id": self.tenant_id,
            "outcome": self.status,
            "seconds": round(self.seconds, 3),
            "exit_code": self.exit_code,
            "error": self.line,
        }


def failed(tenant_id: str, error: BaseException, seconds: float) -> Outcome:
    """The outcome of work that raised ``error``."""
    if isinstance(error, SystemExit) and error.code in (None, 0):
        return Outcome(tenant_id, OK, seconds)
    status = error.status if isinstance(error, JobFailed) else FAILED
    return Outcome(tenant_id, status, seconds, error=error)
