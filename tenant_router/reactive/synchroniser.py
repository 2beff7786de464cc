"""Makes a process equal to its config store: by the whole index, or by what the log says since the head it knows."""

from __future__ import annotations

import logging
import random
import threading
import time
from typing import NamedTuple

from tenant_router.config_store.base import ConfigStore, Event, Head
from tenant_router.exceptions import Compacted, EpochChanged, StoreUnavailable
from tenant_router.reactive.budget import Budget, Reads
from tenant_router.reactive.fleet import Reporter
from tenant_router.reactive.pipeline import ATTEMPTS, Fetch, Pipeline
from tenant_router.reactive.refusals import of_tenants
from tenant_router.reactive.shrinking import ShrinkGuard, ShrinkRefused

logger = logging.getLogger(__name__)

BATCH = 500  # events read at once
READS_PER_SECOND = 50  # of the whole index, by the whole fleet
SPREAD_MAX = 30.0  # seconds that the fleet takes for it at most
LOOK_AGAIN = 1.0  # seconds between two looks at a store that has lost tenants


class Timing(NamedTuple):
    """``idle``, ``resync``: seconds (see the settings ``IDLE`` and ``RESYNC``). ``max_shrink``: a share, 0 to 1."""

    idle: float = 3.0
    resync: float = 600.0
    max_shrink: float = 0.2


class Synchroniser:
    """What a process knows of its store, and how it comes to know more. One at a time reads: ``_lock``."""

    def __init__(self, store: ConfigStore, pipeline: Pipeline, timing: Timing, reporter: Reporter) -> None:
        self.store, self.pipeline, self.timing, self.reporter = store, pipeline, timing, reporter
        store.read_along = pipeline.wants
        self.head: Head | None = None
        self._followed: Head | None = None  # the head of the history that what is served is of
        self.synchronised = False  # once, at least
        self.shrinking = ShrinkGuard(pipeline, timing.max_shrink)
        self.syncs = 0  # since the process began
        self._contact = float("-inf")
        self.reset_after_fork()

    def reset_after_fork(self) -> None:
        """What was read is as old in a child as it is."""
        self._lock = threading.Lock()
        self._caught_up = threading.Event()  # everything that the store had at some time since is applied
        self._lost = False  # the latest step failed
        self._resync_at = self._next_resync()
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
    def refuses(self) -> bool:
        """Whether the store has lost tenants that are kept here."""
        return self.shrinking.refusing

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
            self.pipeline.reconcile({}, of_tenants(index), fetch)
            self.head, self.synchronised, self._contact = head, True, time.monotonic() - age
            self._followed = head

    # --- inside ---

    def _synchronise(self, store: Reads) -> None:
        for _ in range(ATTEMPTS):
            head, before = self._head_of(store), self.pipeline.registry.index.copy()
            fresh = of_tenants(store.index())
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
            self._resync_at = time.monotonic() + max(LOOK_AGAIN, self._spread)  # the log is followed meanwhile
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

    @property
    def _spread(self) -> float:
        """Seconds within which all processes of the service read the index once."""
        return min(SPREAD_MAX, self.reporter.fleet / READS_PER_SECOND)

    def _next_resync(self) -> float:
        return time.monotonic() + self.timing.resync * random.uniform(0.8, 1.2)
