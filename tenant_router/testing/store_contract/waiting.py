"""Tests of ``changes(wait=...)``: waiting for a commit."""

from __future__ import annotations

import statistics
import time
from functools import partial

from tenant_router.config_store.base import ACTIVE, ConfigStore, Head, Op
from tenant_router.testing.store_contract.hooks import Hooks
from tenant_router.testing.store_contract.tools import commit, in_time, later, put


class Waiting(Hooks):
    """A reader hears of a commit at once, and of nothing in time."""

    def test_a_silent_wait_ends(self, store: ConfigStore) -> None:
        """With nothing, after the time that was asked for."""
        put(store, "a")
        head = store.head()
        store.changes(head, wait=0.05)
        for wait in (0.0, 0.5):
            assert in_time(partial(self._silence, store, head, wait), wait + 1)

    def _silence(self, store: ConfigStore, head: Head, wait: float) -> float:
        began = time.monotonic()
        assert store.changes(head, wait=wait) == []
        took = time.monotonic() - began
        assert took >= wait - 0.01
        return took

    def test_a_commit_wakes_a_waiting_reader(self, store: ConfigStore) -> None:
        """At once, whoever wrote it."""
        put(store, "a")
        writer, delays, head = self.reopen(store), list[float](), store.head()
        store.changes(head, wait=0.05)
        while len(delays) < 5 or (statistics.median(delays) >= self.PUSH and sum(delays) < 10):
            with later(lambda: put(writer, "a")) as moments:
                events = store.changes(head, wait=10)
                delays.append(time.monotonic() - moments[0])
            assert len(events) == 1
            head = Head(head.epoch, events[-1].rev, events[-1].chain)
        assert statistics.median(delays) < self.PUSH

    def test_a_long_batch_is_read_without_waiting_in_between(self, store: ConfigStore) -> None:
        """One push announces many events; a reader with a small limit gets all of them at once."""
        put(store, "a")
        head = store.head()
        store.changes(head, wait=0.05)
        commit(store, *(Op(f"t{number}", ACTIVE, b"x") for number in range(50)))
        began = time.monotonic()
        for _ in range(5):
            events = store.changes(head, limit=10, wait=20)
            head = Head(head.epoch, events[-1].rev, events[-1].chain)
        assert head == store.head()
        assert time.monotonic() - began < 15  # a single wait takes longer
