"""What a store remembers of each change, and for how long."""

from __future__ import annotations

import time

import pytest

from tenant_router.config_store.base import ACTIVE, DELETED, READS, SUSPENDED, ConfigStore, Op, stamp
from tenant_router.exceptions import Denied, EpochChanged
from tenant_router.testing.store_contract.hooks import Hooks
from tenant_router.testing.store_contract.tools import commit, put


class Keeping(Hooks):
    """The store's time and the tenant's life are told with each change; what is over has an end."""

    def test_a_change_tells_its_time_and_the_life_of_the_tenant(self, store: ConfigStore) -> None:
        """The index, the log and the record tell the same; a tenant that is created again has another life."""
        put(store, "first")
        head, began = store.head(), time.time()
        commit(store, Op("a", ACTIVE, b"1"), Op("a", SUSPENDED, b"2"), Op("a", DELETED), Op("a", ACTIVE, b"4"))
        put(store, "a", b"5")
        events = store.changes(head)
        assert [stamp(event.packed).incarnation for event in events] == [2, 2, 2, 5, 5]
        assert all(began - 60 < stamp(event.packed).at / 1000 < time.time() + 60 for event in events)
        assert store.index()["a"] == events[-1].packed == store.get_many(["a"])["a"].packed
        put(store, "first", state=DELETED)
        assert stamp(store.index()["first"]).incarnation == 1

    def test_the_chain_of_an_earlier_revision_is_known(self, store: ConfigStore) -> None:
        """It tells whether somebody who is behind follows the present history."""
        with pytest.raises(EpochChanged):
            store.chain_at(1)
        chains = {}
        for number in range(5):
            put(store, f"t{number}")
            chains[store.head().rev] = store.head().chain
        assert {rev: store.chain_at(rev) for rev in chains} == chains
        assert [store.chain_at(rev) for rev in (-1, 0, 6)] == [None] * 3
        assert self._of_a_short_log() is None

    def _of_a_short_log(self) -> str | None:
        short = self.short_log()
        put(short, "a")
        commit(short, *(Op(f"t{number}", ACTIVE, b"x") for number in range(1_000)))
        found = short.chain_at(1)
        short.close()
        return found

    def test_who_is_in_a_hurry_leaves_nothing_behind(self, store: ConfigStore) -> None:
        """The store itself goes on."""
        put(store, "a")
        with store.hurried(20) as brief:
            assert brief.head() == store.head()
            assert brief.get_many(["a"]).keys() == {"a"}
        assert store.head().rev == 1

    def test_old_tombstones_are_purged(self, store: ConfigStore) -> None:
        """By the store's clock; what lives stays, and no history changes."""
        if not store.keeps_house:
            pytest.skip("this backend keeps no house")
        put(store, "a")
        for number in range(5):
            put(store, f"t{number}", state=DELETED)
        head = store.head()
        assert store.purge(3600) == 0
        put(store, "t4")
        time.sleep(0.05)
        assert store.purge(0.001) == 4
        assert store.index().keys() == {"a", "t4"}
        assert store.head().rev == head.rev + 1
        assert put(store, "t1", expect=0) == head.rev + 2

    def test_the_last_entry_is_never_purged(self, store: ConfigStore) -> None:
        """A store without any would be a lost one."""
        if not store.keeps_house:
            pytest.skip("this backend keeps no house")
        put(store, "a", state=DELETED)
        put(store, "b", state=DELETED)
        time.sleep(0.05)
        assert store.purge(0.001) == 1
        assert len(store.index()) == 1
        assert put(store, "c") == 3

    def test_readers_that_are_too_old_are_refused(self, store: ConfigStore) -> None:
        """By the operator's word, which is no part of the history."""
        if not store.keeps_house:
            pytest.skip("this backend keeps no house")
        put(store, "a")
        head = store.head()
        store.insist(READS)
        assert store.head() == head
        store.insist(READS + 1)
        with pytest.raises(Denied, match="upgrade"):
            store.head()
        store.insist(0)
        assert put(store, "a") == 2
