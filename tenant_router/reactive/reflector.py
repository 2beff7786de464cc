"""The loop that keeps a process equal to its config store.

SYNC reads the whole index and takes what differs; WATCH follows the log from there; whatever
goes wrong, the loop waits a little and goes on. A gap in the log or another history leads back
to SYNC. An empty or suddenly shrunken store deletes nobody.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from tenant_router.config_store.base import DELETED, META_ID, ConfigStore, Event, Head
from tenant_router.exceptions import Compacted, EpochChanged, StoreError, StoreUnavailable
from tenant_router.identity import is_tenant_id, no_tenant_ids
from tenant_router.reactive.fleet import Reporter
from tenant_router.reactive.pipeline import Fetch, Pipeline

if TYPE_CHECKING:
    from tenant_router.reactive.last_good import LastGood

logger = logging.getLogger(__name__)

BATCH = 500  # events read at once
# seconds between two reads of the log while changes pour in, at first and at most: a burst is read in few pieces
PACE, PACE_MAX = 0.05, 0.25
BACKOFF = (0.1, 15.0)  # seconds: the first and the longest mean wait after a failure
READY, STALE, STARTING, SHRUNK = "READY", "STALE", "STARTING", "SHRUNK"
ACCEPTED = "accepted"  # the claims, "<epoch>:<revision>", of operators who looked at a shrunken store
SHRINK_FLOOR = 10  # so many tenants may vanish whatever share of all they are


class ShrinkRefused(StoreError):
    """The store lost many tenants at once without deleting them; nothing was taken over."""


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
        self.synchronised = False  # once, at least
        self.refused_shrink = False  # by the latest look at the whole index
        self.syncs = self.failures = 0  # since the process began
        self.reset_after_fork()

    def reset_after_fork(self) -> None:
        """The parent's thread does not exist in a child; what it has read does."""
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._contact = time.monotonic() if self.head else float("-inf")
        self._resync_at = self._next_resync()
        self._last_read, self._gap = 0.0, PACE
        self._failures = 0
        self._reported: type[Exception] | None = None
        self.reporter.reset_after_fork()

    @property
    def since_contact(self) -> float:
        """Seconds since the store last answered; infinite before it ever did."""
        return time.monotonic() - self._contact

    @property
    def ready(self) -> bool:
        """Whether this process is known to be up to date: computed, so a dead thread cannot say so."""
        return (
            self.alive
            and self.head is not None
            and not self.refused_shrink
            and self.since_contact < 3 * self.timing.idle
        )

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
        return SHRUNK if self.refused_shrink else READY if self.ready else STALE

    def start(self) -> None:
        """Start the loop, unless it runs already."""
        with self._lock:
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
            self._synchronise()

    def _synchronise(self) -> None:
        head = self.store.head()
        fresh = _of_tenants(self.store.index())
        self._refuse_shrink(head, fresh)
        self.pipeline.reconcile(fresh, self.store.get_many)
        self.head, self.synchronised = head, True
        self.syncs += 1
        self._contact = time.monotonic()
        self.reporter.news()
        self._resync_at = self._next_resync()
        logger.info("synchronised at revision %d with %d index entries", head.rev, len(fresh))

    def _refuse_shrink(self, head: Head, fresh: dict[str, str]) -> None:
        held = len(self.pipeline.registry.get_known_ids())
        lost = self.pipeline.vanishing(fresh)
        shrunk = bool(lost) and (not fresh or lost > max(SHRINK_FLOOR, held * self.timing.max_shrink))
        self.refused_shrink = shrunk and not self._accepted(head)
        if self.refused_shrink:
            self._resync_at = time.monotonic() + BACKOFF[1]  # the log is followed meanwhile, if it goes on
            raise ShrinkRefused(
                f"{lost} of {held} tenants are gone from the store without having been deleted; they are kept until "
                f"it has them again or an operator says: manage.py tenant_store accept --epoch {head.epoch}"
            )

    def _accepted(self, head: Head) -> bool:
        """Whether an operator has looked at this history, at this revision or an earlier one, and takes it."""
        said = self.store.claimed(ACCEPTED) if self.store.keeps_claims else ()
        looked_at = (word.rpartition(":") for word in said)
        return any(epoch == head.epoch and int(rev) <= head.rev for epoch, _, rev in looked_at)

    def restore(self, age: float, index: dict[str, str], fetch: Fetch) -> None:
        """Serve what was the store's state ``age`` seconds ago; the thread reads the whole index when it can."""
        with self._lock:
            self.pipeline.reconcile(_of_tenants(index), fetch)
            self.synchronised, self._contact = True, time.monotonic() - age

    # --- the thread ---

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._step()
                self._failures, self._reported = 0, None
                self._after_step()
            # Everything, not only store errors: a thread that dies would leave this process deaf.
            except Exception as error:
                self._failed(error)

    def _step(self) -> None:
        if self.head is None or time.monotonic() >= self._resync_at:
            self.synchronise()
            return
        wait = min(self.timing.idle * random.uniform(0.75, 1.25), self.reporter.due_in)
        events = self.store.changes(self.head, BATCH, wait)
        self._contact = time.monotonic()
        if events:
            with self._lock:
                self._apply(events)
                self.head = Head(self.head.epoch, events[-1].rev, events[-1].chain)
            self.reporter.news()
            self._pace(len(events))

    def _after_step(self) -> None:
        self.reporter.tell()
        if self.last_good is not None and self.head is not None:
            self.last_good.keep(self.head, self.pipeline.registry.index, self.store.get_many)

    def _apply(self, events: list[Event]) -> None:
        latest = {event.tenant_id: event for event in events if is_tenant_id(event.tenant_id)}
        news = [event for event in latest.values() if event.rev > self.pipeline.revision_of(event.tenant_id)]
        wanted = [event for event in news if event.state != DELETED and self.pipeline.wants(event.tenant_id)]
        records = {event.tenant_id: event.record for event in wanted if event.record is not None}
        missing = [event.tenant_id for event in wanted if event.record is None]
        records |= self.store.get_many(missing) if missing else {}
        for event in news:
            record = records.get(event.tenant_id)
            if event not in wanted:
                self.pipeline.note(event.tenant_id, event.packed)
            elif record is not None:
                if record.rev < event.rev:
                    raise StoreUnavailable(f"the store does not show revision {event.rev} yet, which its log announces")
                self.pipeline.apply(event.tenant_id, record)
            # else it was deleted since: a later event says so

    def _pace(self, events: int) -> None:
        """Wait so that the next read finds more. Who makes one change after the other is not kept waiting."""
        since = time.monotonic() - self._last_read
        self._gap = min(2 * self._gap, PACE_MAX) if events > 1 and since < 2 * self._gap else PACE
        if since < self._gap:
            self._stopping.wait(self._gap - since)
        self._last_read = time.monotonic()

    def _failed(self, error: Exception) -> None:
        if self._stopping.is_set():
            return
        first, news = self._failures == 0, type(error) is not self._reported  # of a row of failures
        if isinstance(error, EpochChanged | Compacted):
            self.head = None
        level = _LEVELS.get(type(error), logging.WARNING if isinstance(error, StoreError) else logging.CRITICAL)
        trace = None if isinstance(error, StoreError) else error
        logger.log(level if news else logging.DEBUG, "following the config store: %s", error, exc_info=trace)
        self._failures, self._reported = self._failures + 1, type(error)
        self.failures += 1
        if isinstance(error, ShrinkRefused):  # the store is there: the fleet's status can tell
            if news:
                self.reporter.news()
            with suppress(StoreError):
                self.reporter.tell()
        if self.head is None and first:
            return  # the index is read again at once
        self._stopping.wait(random.uniform(0, min(BACKOFF[1], BACKOFF[0] * 2 ** min(self._failures, 20))))

    def _next_resync(self) -> float:
        return time.monotonic() + self.timing.resync * random.uniform(0.8, 1.2)


def _of_tenants(index: dict[str, str]) -> dict[str, str]:
    """``index`` without what is no tenant: the reserved record, and names that are no ids, whoever wrote them."""
    others = no_tenant_ids(index)
    for name in others:
        del index[name]
    bad = [name[:80] for name in others if name != META_ID]
    if bad:
        logger.error("%d names in the config store are no tenant ids and are left out, such as %r", len(bad), bad[0])
    return index
