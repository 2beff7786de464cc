"""Tests of ``get_many`` and ``scan``: records, and the index of their revisions."""

from __future__ import annotations

import random

import pytest

from tenant_router.config_store.base import (
    ACTIVE,
    DELETED,
    DRAINING,
    MAX_BODY,
    MAX_OPS,
    META_ID,
    PROVISIONING,
    SUSPENDED,
    ConfigStore,
    Op,
    digest_of,
)
from tenant_router.exceptions import Conflict, EpochChanged
from tenant_router.testing.store_contract.hooks import Hooks
from tenant_router.testing.store_contract.tools import commit, index_of, pages_of, put, replay, state_of


class Records(Hooks):
    """What was written is found, and nothing else."""

    def test_records_come_back_as_they_were(self, store: ConfigStore) -> None:
        """Every state and any bytes, with the digest of the body."""
        states = (PROVISIONING, ACTIVE, SUSPENDED, DRAINING)
        bodies = [b"", b"|:\r\n\x00", bytes(range(256)), random.Random(1).randbytes(MAX_BODY)]
        for rev, (state, body) in enumerate(zip(states, bodies, strict=True), 1):
            assert put(store, f"t{rev}", body, state=state) == rev
            assert store.get_many([f"t{rev}"])[f"t{rev}"][:4] == (rev, state, digest_of(body), body)
            assert index_of(store)[f"t{rev}"] == (rev, state, digest_of(body))

    def test_a_body_that_is_too_large_is_refused(self, store: ConfigStore) -> None:
        """Before anything is written."""
        with pytest.raises(ValueError, match="large"):
            commit(store, Op("a", ACTIVE, b"x"), Op("large", ACTIVE, b"x" * (MAX_BODY + 1)))
        with pytest.raises(EpochChanged):
            store.head()

    def test_only_what_exists_is_found(self, store: ConfigStore) -> None:
        """Asking for nothing, or for strangers, is no error."""
        put(store, "tenant_1")
        assert store.get_many([]) == {}
        assert store.get_many(["tenant_10", "tenant_", "TENANT_1", ""]) == {}
        assert store.get_many(["x", "tenant_1", "tenant_1"]).keys() == {"tenant_1"}

    def test_the_reserved_record_is_like_any_other(self, store: ConfigStore) -> None:
        """``mapping_metadata`` lives in the same commits as the tenants."""
        commit(store, Op(META_ID, ACTIVE, b"m", expect=0), Op("a", ACTIVE, b"x"))
        assert store.get_many([META_ID])[META_ID].body == b"m"
        assert index_of(store).keys() == {META_ID, "a"}

    def test_a_deleted_tenant_leaves_a_tombstone(self, store: ConfigStore) -> None:
        """It is told from one that never was, counts as absent, and comes back at a higher revision."""
        put(store, "a")
        head = store.head()
        assert commit(store, Op("a", DELETED, b"ignored", expect=1)) == 2
        assert store.get_many(["a"]) == {}
        assert index_of(store) == {"a": (2, DELETED, "")}
        assert [(event.state, event.digest) for event in store.changes(head)] == [(DELETED, "")]
        with pytest.raises(Conflict) as caught:
            put(store, "a", expect=2)
        assert caught.value.have == 0
        assert put(store, "a", b"again", expect=0) == 3
        assert store.get_many(["a"])["a"].body == b"again"

    def test_a_large_index_is_read_in_pages(self, store: ConfigStore) -> None:
        """No page is much longer than asked for, and none is missing."""
        ids = [f"t{number}" for number in range(self.INDEX_SIZE)]
        for start in range(0, len(ids), MAX_OPS):
            commit(store, *(Op(tenant_id, ACTIVE, b"x") for tenant_id in ids[start : start + MAX_OPS]))
        pages = list(pages_of(store, 1_000))
        assert max(map(len, pages)) <= 5_000
        assert {tenant_id for page in pages for tenant_id in page} == set(ids)

    def test_a_scan_and_the_changes_since_make_the_state(self, store: ConfigStore) -> None:
        """Pages that are read while others write, then the log from before them: nothing is lost."""
        dice = random.Random(2)
        writer = self.reopen(store)
        ids = [f"t{number}" for number in range(2_000)]
        commit(writer, *(Op(tenant_id, ACTIVE, b"0") for tenant_id in ids[:1_500]))
        for _ in range(3):
            head, state = store.head(), {}
            for page in pages_of(store, 100):
                state.update(state_of(page))
                commit(writer, *(_random_op(dice, ids) for _ in range(dice.randint(1, 20))))
            head = replay(store, head, state)
            assert head == store.head()
            assert state == index_of(store)
            alive = [tenant_id for tenant_id, entry in state.items() if entry[1] != DELETED]
            assert {key: record[:3] for key, record in store.get_many(ids).items()} == {
                tenant_id: state[tenant_id] for tenant_id in alive
            }


def _random_op(dice: random.Random, ids: list[str]) -> Op:
    state = dice.choice([ACTIVE, SUSPENDED, DELETED])
    return Op(dice.choice(ids), state, dice.randbytes(8))
