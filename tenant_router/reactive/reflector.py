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
from typing import TYPE_CHECKING, NamedTuple

from tenant_router.config_store.base import META_ID, ConfigStore, Event, Head
from tenant_router.exceptions import Compacted, EpochChanged, StoreError, StoreUnavailable
from tenant_router.reactive.budget import Budget, Reads
from tenant_router.reactive.fleet import Reporter
from tenant_router.reactive.pipeline import ATTEMPTS, Fetch, Pipeline
from tenant_router.reactive.shrinking import ShrinkGuard, ShrinkRefused

if TYPE_CHECKING:
    from tenant_router.reactive.last_good import LastGood

logger = logging.getLogger(__name__)

BATCH = 500  # events read at once
# seconds between two reads of the log while changes pour in, at first and at most: a burst is read in few pieces
PACE, PACE_MAX = 0.05, 0.25
BACKOFF = (0.1, 1.0)  # seconds between two attempts after a failure, at first and at most; no answer takes longer
PATIENT = 60  # one of so many attempts waits for as long as the store's client does
READS_PER_SECOND = 50  # of the whole index, by the whole fleet
SPREAD_MAX = 30.0  # seconds that the fleet takes for it at most
READY, STALE, STARTING, SHRUNK = "READY", "STALE", "STARTING", "SHRUNK"


_LEVELS: dict[type[Exception], int] = {ShrinkRefused: logging.CRITICAL}


class Timing(NamedTuple):
    """``idle``, ``resync``: seconds (see the settings ``IDLE`` and ``RESYNC``). ``max_shrink``: a share, 0 to 1."""

    idle: float = 3.0
    resync: float = 600.0
    max_shrink: float = 0.2


class Reflector:
    """One per process. ``synchronise`` may be called by anybody; ``start`` runs the loop in a daemon thread."""

    def __init__(
        self, store: ConfigStore, pipeline: Pipeline, timing: Timing, reporter: Reporter, last_good: LastGood | None
    ) -> None:
        self.store, self.pipeline, self.timing, self.reporter = store, pipeline, timing, reporter
        self.last_good = last_good
        store.read_along = pipeline.wants
        self.head: Head | None = None
        self._followed: Head | None = None  # the head of the history that what is served is of
        self.synchronised = False  # once, at least
        self.shrinking = ShrinkGuard(pipeline, timing.max_shrink)
        self.syncs = self.failures = self._shrinks_told = 0  # since the process began
        self._contact = float("-inf")
        self.reset_after_fork()

    def reset_after_fork(self) -> None:
        """The parent's thread does not exist in a child; what it has read does, as old as it is."""
        self._lock, self._starting = threading.Lock(), threading.Lock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._caught_up = threading.Event()  # everything that the store had at some time since is applied
        self._lost = False  # the latest step failed
        self._resync_at = self._next_resync()
        self._last_read, self._gap = 0.0, PACE
        self._failures = 0  # in a row
        self._reported: type[Exception] | None = None
        self.reporter.reset_after_fork()

    @property
    def since_contact(self) -> float:
        """Seconds since the store last answered; infinite before it ever did."""
        return time.monotonic() - self._contact

    @property
    def silent(self) -> bool:
        """Whether the store has not been heard of for too long."""
        return self.since_contact >= 3 * self.timing.idle

    @property
    def ready(self) -> bool:
        """Whether this process is known to be up to date: computed, so a dead thread cannot say so."""
        return self.alive and self.head is not None and self._caught_up.is_set() and not (self.refuses or self.silent)

    @property
    def refuses(self) -> bool:
        """Whether the store has lost tenants that are kept here."""
        return self.shrinking.refusing

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

    def synchronise(self) -> None:
        """Make this process equal to the store now. Raises ``StoreError``."""
        with self._lock:
            self._synchronise(self.store)

    def catch_up(self, store: Reads) -> None:
        """Take what ``store`` has had since: one question if that is nothing, else the log. Raises ``StoreError``."""
        with self._lock:
            if self.head is None:
                self._synchronise(store)
                return
            head = store.head()
            if head.epoch != self.head.epoch or head.rev < self.head.rev:
                raise EpochChanged(f"the store is at revision {head.rev} of another history than was followed here")
            if head.rev == self.head.rev and head.chain != self.head.chain:
                raise EpochChanged(f"the store's history up to revision {head.rev} is not the one that was followed")
            while self.head.rev < head.rev:
                self._take(store.changes(self.head, BATCH), store)
            self._is_current()

    def catch_up_alone(self, store: ConfigStore, budget: float) -> None:
        """:meth:`catch_up` for a process without the thread, in ``budget`` seconds. Raises ``StoreError``.

        It has no turn to wait for: where the log does not suffice it reads as much of the index as it can.
        """
        brief = Budget(store, budget)
        try:
            self.catch_up(brief)
        except (EpochChanged, Compacted):
            self.head = None
            self.catch_up(brief)

    def wait_caught_up(self, seconds: float) -> bool:
        """Wait until what this process serves is what the store had since it began; whether that came about."""
        return self._caught_up.wait(seconds)

    def restore(self, age: float, head: Head | None, index: dict[str, str], fetch: Fetch) -> None:
        """Serve what was the store's state ``age`` seconds ago; the thread goes on from there when it can."""
        with self._lock:
            self.pipeline.reconcile({}, index, fetch)
            self.head, self.synchronised, self._contact = head, True, time.monotonic() - age
            self._followed = head

    # --- reading ---

    def _synchronise(self, store: Reads) -> None:
        for _ in range(ATTEMPTS):
            head, before = self._head_of(store), self.pipeline.registry.index.copy()
            fresh = store.index()
            fresh.pop(META_ID, None)
            self._refuse_shrink(store, head, fresh)
            if self.pipeline.reconcile(before, fresh, store.get_many, same_history=self._continues(store, head)):
                break
        else:
            raise StoreUnavailable("tenants changed all the time while the index was read")
        self.head, self.synchronised = head, True
        self.syncs += 1
        self._resync_at = self._next_resync()
        self._is_current()
        self.reporter.news()
        logger.info("synchronised at revision %d with %d index entries", head.rev, len(fresh))

    def _continues(self, store: Reads, head: Head) -> bool:
        """Whether the store's history is the one that was followed; what its log does not tell any more is believed."""
        known = self._followed
        if known is None or head.epoch != known.epoch or head.rev < known.rev:
            return False
        return store.chain_at(known.rev) in (known.chain, None)

    def _head_of(self, store: Reads) -> Head:
        """The head of a store whose index is to be read. Raises ``ShrinkRefused`` for what was refused already."""
        try:
            head = store.head()
        except EpochChanged:
            self._contact = time.monotonic()
            self.shrinking.check_empty()
            raise
        if self.shrinking.seen(head):
            self._refuse_shrink(store, head, None)
        return head

    def _refuse_shrink(self, store: Reads, head: Head, fresh: dict[str, str] | None) -> None:
        try:
            self.shrinking.check(store, head, fresh)
        except ShrinkRefused:
            self._contact = time.monotonic()
            self._resync_at = time.monotonic() + max(BACKOFF[1], self._spread)  # the log is followed meanwhile
            raise

    def _take(self, events: list[Event], store: Reads) -> None:
        assert self.head is not None
        self.pipeline.take(events, store.get_many)
        self.head = self._followed = Head(self.head.epoch, events[-1].rev, events[-1].chain)
        self.reporter.news()

    def _is_current(self) -> None:
        now = time.monotonic()
        if self._lost and not self.refuses:  # or a whole fleet would read the index at the end of a long outage
            self._resync_at = max(self._resync_at, now + self.timing.resync * random.uniform(0.0, 0.2))
        self._contact, self._lost, self._followed = now, False, self.head
        self._caught_up.set()

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

    @property
    def _spread(self) -> float:
        """Seconds within which all processes of the service read the index once."""
        return min(SPREAD_MAX, self.reporter.fleet / READS_PER_SECOND)

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
        first, news = self._failures == 0, self._is_news(error)  # of a row of failures
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
        if self.head is None and first:
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

    def _next_resync(self) -> float:
        return time.monotonic() + self.timing.resync * random.uniform(0.8, 1.2)
