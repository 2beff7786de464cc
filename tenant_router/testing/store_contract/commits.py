"""Tests of ``commit``: history, compare-and-set, repeated requests."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from tenant_router.config_store.base import ACTIVE, DELETED, MAX_OPS, SUSPENDED, ConfigStore, Head, Op
from tenant_router.exceptions import Conflict, EpochChanged
from tenant_router.testing.store_contract.hooks import Hooks
from tenant_router.testing.store_contract.tools import commit, index_of, put


class Commits(Hooks):
    """What a commit writes, and when it writes nothing."""

    def test_an_empty_store_is_not_an_empty_fleet(self, store: ConfigStore) -> None:
        """Nobody may conclude from a lost store that all tenants were deleted."""
        with pytest.raises(EpochChanged):
            store.head()
        with pytest.raises(EpochChanged):
            put(store, "a", epoch="one-that-was")
        with pytest.raises(EpochChanged):
            store.changes(Head("one-that-was", 7, "c"), wait=0)
        assert index_of(store) == {}

    def test_the_first_commit_begins_a_history(self, store: ConfigStore) -> None:
        """An unnamed epoch is created, named, and may then be insisted on."""
        assert put(store, "a") == 1
        head = store.head()
        assert head.epoch
        assert head.rev == 1
        assert put(store, "b", epoch=head.epoch) == 2
        assert store.head().epoch == head.epoch

    def test_creating_twice_conflicts(self, store: ConfigStore) -> None:
        """``expect=0`` means that the tenant does not exist."""
        put(store, "a", expect=0)
        with pytest.raises(Conflict) as caught:
            put(store, "a", expect=0)
        assert (caught.value.tenant_id, caught.value.expected, caught.value.have) == ("a", 0, 1)

    def test_a_stale_expectation_conflicts(self, store: ConfigStore) -> None:
        """The error tells the revision that there is."""
        first = put(store, "a")
        put(store, "b")
        second = put(store, "a", expect=first)
        with pytest.raises(Conflict) as caught:
            put(store, "a", expect=first)
        assert (caught.value.expected, caught.value.have) == (first, second)
        with pytest.raises(Conflict):
            put(store, "unknown", expect=1)

    def test_a_conflict_writes_nothing(self, store: ConfigStore) -> None:
        """Not even the operations of the batch that stand before it."""
        put(store, "a")
        head, index = store.head(), index_of(store)
        with pytest.raises(Conflict):
            commit(store, Op("new", ACTIVE, b"1"), Op("a", DELETED), Op("a", ACTIVE, b"2", expect=99))
        assert store.head() == head
        assert index_of(store) == index
        assert store.get_many(["a", "new"]).keys() == {"a"}
        assert store.changes(head) == []

    def test_operations_of_one_tenant_in_a_batch_follow_one_another(self, store: ConfigStore) -> None:
        """A later operation expects what the earlier ones of its batch will have written."""
        commit(store, Op("a", ACTIVE, b"1", 0), Op("a", SUSPENDED, b"2", 1), Op("a", DELETED, expect=2))
        assert commit(store, Op("a", DELETED), Op("a", ACTIVE, b"5", 0)) == 5
        assert store.get_many(["a"])["a"].body == b"5"

    def test_a_request_has_one_effect(self, store: ConfigStore) -> None:
        """A repeated request id returns the old revision, though its expectation no longer holds."""
        ops = [Op("a", ACTIVE, b"1", expect=0), Op("b", ACTIVE, b"1")]
        assert store.commit(ops, request_id="r1") == 2
        put(store, "c")
        head = store.head()
        assert self.reopen(store).commit(ops, request_id="r1") == 2
        assert store.head() == head

    def test_each_operation_takes_one_revision(self, store: ConfigStore) -> None:
        """Revisions have no holes, and a commit returns its last one."""
        assert put(store, "a") == 1
        assert commit(store, *(Op(f"t{number}", ACTIVE, b"x") for number in range(10))) == 11
        with pytest.raises(Conflict):
            put(store, "a", expect=0)
        assert put(store, "a") == 12
        assert store.head().rev == 12

    def test_a_batch_is_bounded(self, store: ConfigStore) -> None:
        """Nothing is written of a batch that is empty or too long."""
        with pytest.raises(ValueError):
            commit(store)
        with pytest.raises(ValueError):
            commit(store, *(Op("a", ACTIVE, b"x") for _ in range(MAX_OPS + 1)))
        with pytest.raises(EpochChanged):
            store.head()

    def test_two_writers_lose_no_update(self, store: ConfigStore) -> None:
        """Read, compare and set from two writers adds up exactly."""
        put(store, "counter", b"0")
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(self._increment, [store, self.reopen(store)]))
        assert store.get_many(["counter"])["counter"].body == b"%d" % (2 * self.CAS_ROUNDS)

    def _increment(self, store: ConfigStore) -> None:
        for _ in range(self.CAS_ROUNDS):
            while True:
                have = store.get_many(["counter"])["counter"]
                with suppress(Conflict):
                    put(store, "counter", b"%d" % (int(have.body) + 1), expect=have.rev)
                    break
