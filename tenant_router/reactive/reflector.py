"""The loop that keeps a process equal to its config store.

SYNC reads the whole index and takes what differs; WATCH follows the log from there; whatever
goes wrong, the loop waits a little, asks for the head and goes on. A gap in the log or another
history leads back to SYNC. An empty or suddenly shrunken store deletes nobody.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import TYPE_CHECKING

from tenant_router.config_store.base import ConfigStore
from tenant_router.exceptions import Compacted, EpochChanged, StoreError
from tenant_router.reactive.budget import Reads
from tenant_router.reactive.fleet import Reporter
from tenant_router.reactive.pipeline import Pipeline
from tenant_router.reactive.shrinking import ShrinkRefused
from tenant_router.reactive.synchroniser import BATCH, Synchroniser, Timing

if TYPE_CHECKING:
    from tenant_router.reactive.last_good import LastGood

logger = logging.getLogger(__name__)

# seconds between two reads of the log while changes pour in, at first and at most: a burst is read in few pieces
PACE, PACE_MAX = 0.05, 0.25
BACKOFF = (0.1, 1.0)  # seconds between two attempts after a failure, at first and at most; no answer takes longer
AT_ONCE = 4  # failures in a row, of which one that leads to reading the index is not waited after
PATIENT = 60  # one of so many attempts waits for as long as the store's client does
READY, STALE, STARTING, SHRUNK = "READY", "STALE", "STARTING", "SHRUNK"


_LEVELS: dict[type[Exception], int] = {ShrinkRefused: logging.CRITICAL}


class Reflector(Synchroniser):
    """One per process. ``synchronise`` may be called by anybody; ``start`` runs the loop in a daemon thread."""

    def __init__(
        self, store: ConfigStore, pipeline: Pipeline, timing: Timing, reporter: Reporter, last_good: LastGood | None
    ) -> None:
        self.last_good = last_good
        self.failures = self._shrinks_told = 0  # since the process began
        super().__init__(store, pipeline, timing, reporter)

    def reset_after_fork(self) -> None:
        """The parent's thread does not exist in a child."""
        super().reset_after_fork()
        self._starting = threading.Lock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._last_read, self._gap = 0.0, PACE
        self._failures = 0  # in a row
        self._reported: type[Exception] | None = None

    @property
    def ready(self) -> bool:
        """Whether this process is known to be up to date: computed, so a dead thread cannot say so."""
        return self.alive and self.head is not None and self._caught_up.is_set() and not (self.refuses or self.silent)

    @property
    def alive(self) -> bool:
        """Whether the loop runs in this process."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def died(self) -> bool:
        """Whether the loop was started in this process and ended without having been told to."""
        return self._thread is not None and not self._thread.is_alive() and not self._stopping.is_set()

    @property
    def state(self) -> str:
        """``READY``, ``STALE``, ``STARTING`` (it never read a store) or ``SHRUNK`` (it refuses what it reads)."""
        if not self.synchronised:
            return STARTING
        return SHRUNK if self.refuses else READY if self.ready else STALE

    def start(self) -> None:
        """Start the loop, unless it runs already."""
        with self._starting:
            if self._thread is None or not self._thread.is_alive():
                self._stopping.clear()
                self._thread = threading.Thread(target=self._run, name="tenant_router-reflector", daemon=True)
                self._thread.start()

    def stop(self) -> None:
        """End the loop and the store's connections."""
        self._stopping.set()
        if self.alive:
            with suppress(StoreError):
                self.reporter.leave()
        self.store.close()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout=10)

    # --- the thread ---

    def _run(self) -> None:
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                self._step()
                self._after_step()
            # Everything, not only store errors: a thread that dies would leave this process deaf.
            except Exception as error:
                self._failed(error, time.monotonic() - began)

    def _step(self) -> None:
        if self.silent and self.timing.idle:
            self._caught_up.clear()
        if self.head is None:
            self._read_index_again()
        elif self._lost or not self._caught_up.is_set():
            with self._quickly() as store:
                self.catch_up(store)
        elif time.monotonic() >= self._resync_at:
            self.synchronise()
        else:
            self._watch()
            self._failures, self._reported = 0, None

    def _watch(self) -> None:
        assert self.head is not None
        idle = self.timing.idle * random.uniform(0.6, 1.0)
        events = self.store.changes(self.head, BATCH, min(idle, self.reporter.due_in, self.pipeline.due_in))
        self._contact = time.monotonic()
        if events:
            with self._lock:
                self._take(events, self.store)
            self._pace(len(events))

    def _read_index_again(self) -> None:
        """Read the whole index, after a gap or of another history, when it is this process's turn."""
        with self._quickly() as store:
            if self.synchronised:
                self._head_of(store)  # a store that is away, empty or refused costs a question, and no turn
                self.reporter.tell()
                pause = random.uniform(0.0, self._spread)
                logger.info("reading the index in %.1f s: %d processes take turns", pause, self.reporter.fleet)
                self._stopping.wait(pause)
            with self._lock:
                self._synchronise(store)

    def _quickly(self) -> AbstractContextManager[Reads]:
        """The store, asked by new connections and with little patience: who hangs is asked again, and not waited for.

        At times it is asked with all patience, for it may be slow and not away.
        """
        patient = self._failures % PATIENT == PATIENT - 1
        return nullcontext(self.store) if patient else self.store.hurried(BACKOFF[1])

    def _after_step(self) -> None:
        self.pipeline.retry(self.store.get_many)
        self.reporter.tell()
        if self.last_good is not None and self.head is not None and not self.refuses:
            self.last_good.keep(self.head, self.pipeline.registry.index, self.store.get_many, self.store.chain_at)

    def _pace(self, events: int) -> None:
        """Wait so that the next read finds more. Who makes one change after the other is not kept waiting.

        Nor is who makes so many that a read is full: what comes next is there already.
        """
        since = time.monotonic() - self._last_read
        self._gap = min(2 * self._gap, PACE_MAX) if events > 1 and since < 2 * self._gap else PACE
        if since < self._gap and events < BATCH:
            self._stopping.wait(self._gap - since)
        self._last_read = time.monotonic()

    def _failed(self, error: Exception, took: float = 0.0) -> None:
        if self._stopping.is_set():
            return
        news, lost_track = self._is_news(error), self.head is not None and isinstance(error, EpochChanged | Compacted)
        if isinstance(error, EpochChanged | Compacted):
            self.head = None
            if self.last_good is not None:
                self.last_good.hasten()
        self._log_failure(error, news)
        self._failures, self._reported, self._lost = self._failures + 1, type(error), True
        self.failures += 1
        if isinstance(error, ShrinkRefused):  # the store is there: the fleet's status can tell
            if news:
                self.reporter.news()
            self.reporter.tell()
        if lost_track and self._failures < AT_ONCE:
            return  # the index is read again at once
        pause = min(BACKOFF[1], BACKOFF[0] * 2 ** min(self._failures, 20)) * random.uniform(0.5, 1.0)
        self._stopping.wait(max(0.0, pause - took))

    def _is_news(self, error: Exception) -> bool:
        if isinstance(error, ShrinkRefused):
            told, self._shrinks_told = self._shrinks_told, self.shrinking.refusals
            return told < self._shrinks_told
        return type(error) is not self._reported

    def _log_failure(self, error: Exception, news: bool) -> None:
        level = _LEVELS.get(type(error), logging.WARNING if isinstance(error, StoreError) else logging.CRITICAL)
        trace = None if isinstance(error, StoreError) else error
        logger.log(level if news else logging.DEBUG, "following the config store: %s", error, exc_info=trace)
