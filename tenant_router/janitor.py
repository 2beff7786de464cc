"""The thread that closes what may not be closed where it is let go of: within an event loop, or by the reader."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Any

logger = logging.getLogger(__name__)

Job = Callable[[], None]
_END = object()
SWEEP_GAP = 1.0  # seconds between two looks at what has been idle for too long


class Janitor:
    """One thread, made at its first job. ``sweep`` closes what is idle for too long and says when to look again.

    ``threaded``, of the process: off where it only forks its servers, and must have no thread: jobs are done at once.
    """

    threaded = True

    def __init__(self, sweep: Callable[[], float | None] = lambda: None) -> None:
        self._sweep = sweep
        self.reset_after_fork()

    def reset_after_fork(self) -> None:
        """The parent's thread, and its jobs, are not the child's."""
        self._jobs: SimpleQueue[Any] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._look_at = float("inf")  # time.monotonic()

    def do(self, job: Job) -> None:
        """Have ``job`` done soon; it must not raise."""
        if not self.threaded:
            job()
            return
        self._jobs.put(job)
        self._start()

    def do_if_running(self, job: Job) -> None:
        """As :meth:`do`, for who runs wherever the collector does, and so takes no lock: nothing where no thread is."""
        if self._thread is not None:
            self._jobs.put(job)  # of a SimpleQueue, which is reentrant

    def stop(self) -> None:
        """Do what is there to be done, and end the thread; the next job begins another one."""
        thread, self._thread = self._thread, None
        if thread is not None and thread.is_alive():
            self._jobs.put(_END)
            if thread is not threading.current_thread():
                thread.join(timeout=10)

    def look_at(self, when: float) -> None:
        """Something will have been idle for too long at ``when`` (``time.monotonic()``)."""
        if when < self._look_at and self.threaded:
            self._look_at = when
            self._jobs.put(None)  # it may be waiting for longer
            self._start()

    def _start(self) -> None:
        if self._thread is not None and self._thread.is_alive():
            return
        # Without waiting: who is starting it, perhaps this very thread, in which the garbage collector interrupted
        # it, has the job done, too.
        if not self._lock.acquire(blocking=False):
            return
        try:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="tenant_router-janitor", daemon=True)
                self._thread.start()
        finally:
            self._lock.release()

    def _run(self) -> None:
        while True:
            try:
                left = self._look_at - monotonic()
                job = self._jobs.get(timeout=max(0.0, left)) if left != float("inf") else self._jobs.get()
            except Empty:
                self._look()
            else:
                if job is _END:
                    return
                if job is not None:
                    self._done(job)

    def _look(self) -> None:
        self._look_at = float("inf")  # first: who comes meanwhile says so again
        self._done(self._sweep_and_plan)

    def _sweep_and_plan(self) -> None:
        following = self._sweep()
        if following is not None:
            self._look_at = min(self._look_at, max(following, monotonic() + SWEEP_GAP))

    def _done(self, job: Job) -> None:
        try:
            job()
        except Exception:  # the thread goes on: others wait for it
            logger.exception("closing what is idle failed")


def in_event_loop() -> bool:
    """Whether an event loop runs in this thread: what would block there, or refuses to, is the janitor's."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _after_fork() -> None:
    Janitor.threaded = True  # a server's child serves itself


os.register_at_fork(after_in_child=_after_fork)
