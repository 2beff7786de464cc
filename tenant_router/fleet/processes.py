"""Work in fresh processes: a command line per tenant, which shares nothing with this process."""

from __future__ import annotations

import codecs
import os
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import IO, TextIO

from tenant_router.fleet.outcomes import TIMED_OUT, JobFailed

LOOK = 0.1  # seconds between two looks at a process that prints nothing
PATIENCE = 5.0  # seconds for which a process may go on that was told to end
PIECE = 65536  # bytes


class Processes:
    """Runs command lines, each in a process group of its own, so that Ctrl-C on the terminal does not reach them.

    ``timeout``: seconds after which a process group is ended.
    """

    def __init__(self, environment: Mapping[str, str], timeout: float | None) -> None:
        self._environment, self._timeout = dict(environment), timeout
        self._lock, self._killed = threading.Lock(), False
        self._groups: set[int] = set()

    def run(self, arguments: Sequence[str], out: TextIO, err: TextIO) -> None:
        """Run a command line to its end, and what it prints into ``out`` and ``err``.

        Raises ``JobFailed`` with its exit code and the last line of its errors, ``OSError``.
        """
        deadline = None if self._timeout is None else time.monotonic() + self._timeout
        last = _LastLine(err)
        process = self._start(arguments)
        try:
            in_time = _follow(process, {process.stdout: out.write, process.stderr: last.write}, deadline)
            if not in_time:
                _signal(process.pid, signal.SIGTERM)
                _follow(process, {process.stdout: out.write, process.stderr: last.write}, time.monotonic() + PATIENCE)
        finally:
            self._end(process)
        if not in_time:
            raise JobFailed(f"it was ended after {self._timeout:g} s (--timeout)", None, TIMED_OUT)
        if process.returncode:
            raise _failure(process.returncode, last.text)

    def kill(self) -> None:
        """End at once all that run, and start none any more."""
        with self._lock:
            self._killed = True
            groups = list(self._groups)
        for group in groups:
            _signal(group, signal.SIGKILL)

    def _start(self, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._killed:
                raise JobFailed("it was stopped before it began", None)
            process = subprocess.Popen(
                arguments,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
            self._groups.add(process.pid)
        return process

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        """End what is left of its group. The number is the group's until its leader was waited for."""
        with self._lock:
            _signal(process.pid, signal.SIGKILL)
            self._groups.discard(process.pid)
        process.wait()
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


class _LastLine:
    """Hands on what is written, and keeps the last line that says something."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._rest, self.text = stream, "", ""

    def write(self, text: str) -> None:
        self._stream.write(text)
        *lines, rest = (self._rest + text).splitlines() or [""]
        self._rest = "" if text.endswith("\n") else rest
        self.text = next((line.strip() for line in [rest, *reversed(lines)] if line.strip()), self.text)


def _follow(
    process: subprocess.Popen[bytes],
    writers: Mapping[IO[bytes] | None, Callable[[str], object]],
    deadline: float | None,
) -> bool:
    """Hand on what a process prints until it has ended; ``False`` if it has not at ``deadline``.

    Its end counts, and not the end of its pipes: what it has left behind may hold those.
    """
    decoders = {pipe: codecs.getincrementaldecoder("utf-8")("replace") for pipe in writers}
    with selectors.DefaultSelector() as waiting:
        for pipe in writers:
            if pipe is not None:
                waiting.register(pipe, selectors.EVENT_READ)
        while True:
            ended = _has_ended(process)  # before it is read: what was written last counts, too
            ready = waiting.select(0 if ended else LOOK)
            for key, _ in ready:
                piece = os.read(key.fd, PIECE)
                writers[key.fileobj](decoders[key.fileobj].decode(piece, not piece))  # type: ignore[index]
                if not piece:
                    waiting.unregister(key.fileobj)
            if ended and not ready:
                return True
            if not waiting.get_map() and not ended:
                time.sleep(LOOK)
            if deadline is not None and time.monotonic() >= deadline and not ended:
                return False


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Whether a child has ended. It stays a zombie, so that its number, which is its group's, is not another's yet."""
    if not hasattr(os, "waitid"):  # macOS before Python 3.13
        return process.poll() is not None
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _signal(group: int, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):  # macOS says the latter of a group of zombies
        os.killpg(group, number)


def _failure(code: int, line: str) -> JobFailed:
    if code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        return JobFailed(f"it was killed by {name}", 128 - code)
    return JobFailed(line or f"it ended with {code}", code)
