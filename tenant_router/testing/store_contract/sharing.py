"""Tests of a store that threads and forked processes share."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

from tenant_router.config_store.base import ACTIVE, ConfigStore, Head, digest_of
from tenant_router.testing.store_contract.hooks import Hooks
from tenant_router.testing.store_contract.tools import State, in_child, index_of, later, put, replay, verbs


class Sharing(Hooks):
    """Nobody is disturbed by another one."""

    def test_threads_share_a_store(self, store: ConfigStore) -> None:
        """Sixteen of them use every verb at a time, and nothing is mixed up."""
        put(store, "start")
        start = store.head()
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda number: self._mixed_use(store, f"t{number}"), range(16)))
        state: State = {}
        assert replay(store, start, state).rev == store.head().rev == 1 + 16 * 20
        assert state == {key: entry for key, entry in index_of(store).items() if key != "start"}

    def _mixed_use(self, store: ConfigStore, tenant_id: str) -> None:
        rev = 0
        for number in range(20):
            body = f"{tenant_id}:{number}".encode()
            rev = put(store, tenant_id, body, expect=rev)
            assert store.get_many([tenant_id])[tenant_id][:4] == (rev, ACTIVE, digest_of(body), body)
            assert index_of(store)[tenant_id] == (rev, ACTIVE, digest_of(body))
            assert store.head().rev >= rev

    def test_parent_and_child_go_on_after_a_fork(self, store: ConfigStore) -> None:
        """The child has connections of its own, and its end does not disturb the parent's."""
        put(store, "a")
        head = store.head()
        store.changes(head, wait=0.05)
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(store.changes, head, wait=30)
            time.sleep(0.1)
            assert in_child(lambda: _use_in_child(store, head)) == 0
            put(store, "b")
            assert waiting.result()[0].rev == 2
        head = store.head()
        with later(lambda: put(store, "c")):
            assert store.changes(head, wait=10)


def _use_in_child(store: ConfigStore, head: Head) -> None:
    store.reset_after_fork()
    for verb in verbs(store, head)[:3]:
        verb()
    assert store.changes(head, wait=0.1) == []
    put(store, "child")
    began = time.monotonic()
    assert store.changes(head, wait=20)[0].rev == 2
    assert time.monotonic() - began < 15  # the push was the child's own, and not taken by the parent
    store.close()
