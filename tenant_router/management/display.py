"""What is shown while a command runs for many tenants: whole lines that say whose they are, and how far it is."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TextIO, cast

from django.core.management.base import OutputWrapper
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from tenant_router.fleet.outcomes import Outcome
from tenant_router.fleet.output import LineStream
from tenant_router.management.output import encodable


class Display:
    """Lines of tenants go to ``out`` and ``err``, or below ``folder``; progress goes to ``err``.

    ``lost``: called when something could not be written, which is then ``fault``; nothing more is shown then.
    """

    def __init__(
        self,
        out: OutputWrapper,
        err: OutputWrapper,
        total: int,
        *,
        quiet: bool,
        folder: Path | None,
        lost: Callable[[], None],
    ) -> None:
        # what is wrapped: the wrappers would end each piece of the bar's line
        self._out, self._err = cast(TextIO, out._out), cast(TextIO, err._out)
        self._quiet, self._folder, self._lost = quiet, folder, lost
        self._lock, self.fault = threading.Lock(), cast("OSError | ValueError | None", None)
        self._on_terminal = out.isatty()
        self._bar = _bar(self._err) if err.isatty() and not quiet else None
        self._task = self._bar.add_task("", total=total) if self._bar else None

    def __enter__(self) -> Display:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar:
            self._bar.stop()

    @contextmanager
    def streams(self, tenant_id: str) -> Iterator[tuple[Any, Any]]:
        """Two streams for what is printed for a tenant."""
        if self._folder is None:
            places = [partial(self._show, self._out, tenant_id), partial(self._show, self._err, tenant_id)]
            made = [LineStream(place) for place in places]
        else:
            files = [_File(self._folder / tenant_id / f"{name}.txt") for name in ("stdout", "stderr")]
            made = [LineStream(partial(self._keep, file)) for file in files]
        try:
            yield made[0], made[1]
        finally:
            for stream in made:
                stream.finish()
            if self._folder is not None:
                for file in files:
                    file.close()

    def tell(self, outcome: Outcome) -> None:
        """Tell what came of a tenant: failures always, others by the bar or a line."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, advance=1, description=outcome.tenant_id)
        seconds = f"({outcome.seconds:.2f} s)"
        if not outcome.ok:
            self._write(self._err, f"{outcome.tenant_id}: {outcome.status.upper()}: {outcome.line} {seconds}")
        elif self._bar is None:
            self.say(f"{outcome.tenant_id}: ok {seconds}")

    def say(self, line: str) -> None:
        """A line about the run."""
        if not self._quiet:
            self._write(self._err, line)

    # --- inside ---

    def _show(self, stream: TextIO, tenant_id: str, line: str) -> None:
        self._write(stream, f"{tenant_id} | {line}")

    def _write(self, stream: TextIO, line: str) -> None:
        if self.fault is not None:
            return
        try:
            if self._bar is not None and (stream is self._err or self._on_terminal):
                self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)
            else:
                with self._lock:
                    stream.write(f"{encodable(line, stream)}\n")
                    stream.flush()
        except (OSError, ValueError) as error:  # ValueError: it was closed since
            self._give_up(error)

    def _keep(self, file: _File, line: str) -> None:
        try:
            file.write(f"{line}\n")
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError | ValueError) -> None:
        self.fault = error
        self._lost()


class _File:
    """A file that is made when something is written to it; what an earlier run has left is taken away."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.unlink(missing_ok=True)
        self._file: TextIO | None = None

    def write(self, text: str) -> None:
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("w", encoding="utf-8", errors="surrogateescape", buffering=1)
        self._file.write(text)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


class _Rate(ProgressColumn):
    """Tenants per second since the beginning."""

    def render(self, task: Task) -> Text:
        seconds = task.finished_time or task.elapsed
        return Text(f"{task.completed / seconds:.1f}/s" if seconds and task.completed else "")


def _bar(stream: TextIO) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
    return Progress(*columns, console=Console(file=stream), get_time=time.monotonic)
