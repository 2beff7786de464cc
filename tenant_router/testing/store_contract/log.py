"""Tests of ``changes``: the log of commits, read in order from any revision."""

from __future__ import annotations

import pytest

from tenant_router.config_store.base import ACTIVE, DELETED, ConfigStore, Event, Head, Op
from tenant_router.exceptions import Compacted, EpochChanged
from tenant_router.testing.store_contract.hooks import Hooks
from tenant_router.testing.store_contract.tools import commit, put


class Log(Hooks):
    """A reader follows a history without a gap, or is told."""

    def test_events_are_contiguous_and_come_once(self, store: ConfigStore) -> None:
        """Whatever the pages, the log says every operation in order, and where the chain ends."""
        put(store, "t0")
        head = store.head()
        for number in range(1, 8):
            commit(store, Op(f"t{number}", ACTIVE, b"x"), Op(f"t{number - 1}", DELETED))
        after, events = head, list[Event]()
        while page := store.changes(after, limit=4):
            assert len(page) <= 4
            events += page
            after = Head(head.epoch, page[-1].rev, page[-1].chain)
        assert after == store.head()
        assert [event.rev for event in events] == list(range(2, 16))
        assert [event.tenant_id for event in events][:4] == ["t1", "t0", "t2", "t1"]

    def test_a_reader_resumes_from_any_revision(self, store: ConfigStore) -> None:
        """Each earlier head leads to the present one."""
        heads = []
        for number in range(20):
            put(store, f"t{number % 3}", b"%d" % number)
            heads.append(store.head())
        for head in heads:
            assert [event.rev for event in store.changes(head)] == list(range(head.rev + 1, 21))

    def test_a_reader_behind_the_log_is_told(self, store: ConfigStore) -> None:
        """It must read the index; the events that are left would not make up for those that are gone."""
        short = self.short_log()
        put(short, "a")
        head = short.head()
        commit(short, *(Op(f"t{number}", ACTIVE, b"x") for number in range(1_000)))
        with pytest.raises(Compacted):
            short.changes(head)
        end = short.head()
        put(short, "last")
        assert [event.tenant_id for event in short.changes(end)] == ["last"]
        short.close()

    def test_a_reader_ahead_of_the_store_is_told(self, store: ConfigStore) -> None:
        """It does not wait in silence for revisions that are another history's."""
        put(store, "a")
        head = store.head()
        with pytest.raises(EpochChanged):
            store.changes(head._replace(rev=5), wait=0.2)

    def test_a_rewritten_history_is_noticed(self, store: ConfigStore) -> None:
        """By the chain, at the same revision and below it."""
        put(store, "a")
        early = store.head()._replace(chain="0" * 40)
        with pytest.raises(EpochChanged):
            store.changes(early)
        put(store, "b")
        with pytest.raises(EpochChanged):
            store.changes(early)

    @pytest.mark.parametrize("commits", [1, 2, 3, 4])
    def test_another_history_is_noticed(self, store: ConfigStore, commits: int) -> None:
        """Though it says the same, whether it is shorter or longer than the one that was followed."""
        for _ in range(2):
            put(store, "a", b"same")
        head = store.head()
        self.wipe(store)
        with pytest.raises(EpochChanged):
            store.changes(head)
        for _ in range(commits):
            put(store, "a", b"same")
        with pytest.raises(EpochChanged):
            store.changes(head, wait=0.1)
        with pytest.raises(EpochChanged):
            put(store, "a", epoch=head.epoch)
        assert store.head().rev == commits
