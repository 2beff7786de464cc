"""What came of a run over many tenants: the report for programs, the last line for people, and how to run the rest."""

from __future__ import annotations

import json
import os
import shlex
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TextIO

from django.core.management.base import CommandError

from tenant_router.fleet.outcomes import OK, Outcome
from tenant_router.management.operator import USAGE

NAMED = 20  # tenants that one line names; more stand in a file


def opened(path: str | None) -> TextIO | None:
    """The report's file, made before anything runs. Raises ``CommandError``."""
    if path is None:
        return None
    try:
        return open(path, "w", encoding="utf-8")
    except OSError as error:
        raise CommandError(
            f"the report {path!r} cannot be written: {error.strerror}; nothing was run", returncode=USAGE
        ) from error


def folder(path: str | None) -> Path | None:
    """The folder that collects what is printed, made before anything runs. Raises ``CommandError``."""
    if path is None:
        return None
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CommandError(
            f"the folder {path!r} cannot be made: {error.strerror}; nothing was run", returncode=USAGE
        ) from error
    return Path(path)


def write(file: TextIO, about: dict[str, Any], outcomes: Sequence[Outcome]) -> None:
    """Write the report (its form: docs/commands.md). Raises ``CommandError``."""
    counts = Counter(outcome.status for outcome in outcomes)
    told = {"counts": dict(sorted(counts.items())), "tenants": [outcome.as_dict() for outcome in outcomes]}
    write_json(file, {**about, **told})


def write_json(file: TextIO, said: dict[str, Any]) -> None:
    """Write and close a report. Raises ``CommandError``."""
    try:
        with file:
            json.dump(said, file, indent=2)
            file.write("\n")
    except OSError as error:
        raise CommandError(f"the report {file.name!r} could not be written: {error.strerror}") from error


def summary(outcomes: Sequence[Outcome], seconds: float) -> str:
    """How many came to what, in one line."""
    counts = Counter(outcome.status for outcome in outcomes)
    told = ", ".join(f"{counts[status]} {status}" for status in sorted(counts, key=lambda each: (each != OK, each)))
    return f"{len(outcomes)} {'tenant' if len(outcomes) == 1 else 'tenants'}: {told} in {seconds:.1f} s"


def undone(outcomes: Sequence[Outcome], program: Sequence[str], again: Callable[[list[str]], list[str]]) -> str:
    """Who is not done, and the command line that runs exactly them again.

    ``program``: what is run, such as ``manage.py``. ``again(selectors)``: the words after it.
    """
    left = [outcome.tenant_id for outcome in outcomes if not outcome.ok]
    counts = Counter(outcome.status for outcome in outcomes if not outcome.ok)
    told = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
    more = len(left) - NAMED
    names = ", ".join(left[:NAMED]) + (f" and {more} more" if more > 0 else "")
    selectors = left if more <= 0 else [f"@{_listed(left)}"]
    line = shlex.join([*_interpreted(program), *again(selectors)])
    return f"not done for {len(left)} of {len(outcomes)} ({told}): {names}; to run it again for exactly them: {line}"


def _listed(tenant_ids: Sequence[str]) -> str:
    """A new file that lists tenants."""
    descriptor, path = tempfile.mkstemp(prefix="tenants-", suffix=".txt")
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.writelines(f"{tenant_id}\n" for tenant_id in tenant_ids)
    return path


def _interpreted(program: Sequence[str]) -> list[str]:
    """A command line as people write it: a script that is no Python file has an interpreter of its own."""
    return ["python", *program] if len(program) > 1 or program[0].endswith(".py") else [*program]
