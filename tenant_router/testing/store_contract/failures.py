"""Tests of failures: a store that is closed, unreachable, or refuses the credentials."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from tenant_router.config_store.base import ConfigStore, Head
from tenant_router.exceptions import Denied, StoreUnavailable
from tenant_router.testing.store_contract.hooks import Hooks
from tenant_router.testing.store_contract.tools import in_time, later, put, verbs


class Failures(Hooks):
    """Every verb says so in time."""

    def test_closing_wakes_and_refuses(self, store: ConfigStore) -> None:
        """A blocked reader returns at once; every later use says that the store is closed."""
        put(store, "a")
        head = store.head()
        assert in_time(lambda: self._closed_while_it_waits(self.reopen(store), head), 0.5)
        store.changes(head, wait=0.05)
        store.close()
        store.close()
        for verb in verbs(store, head):
            with pytest.raises(StoreUnavailable):
                verb()

    def _closed_while_it_waits(self, store: ConfigStore, head: Head) -> float:
        store.changes(head, wait=0.05)
        with later(store.close) as moments:
            with pytest.raises(StoreUnavailable):
                store.changes(head, wait=10)
            return time.monotonic() - moments[0]

    def test_an_unreachable_store_is_unavailable(self, store: ConfigStore) -> None:
        """Every verb says so in time, and works again afterwards without a new object."""
        put(store, "a")
        head = store.head()
        store.changes(head, wait=0.05)
        with self.outage(store):
            *others, changes = verbs(store, head)
            with ThreadPoolExecutor(len(others)) as pool:
                assert all(pool.map(self._gives_up, others))
            assert self._gives_up(changes)
        assert put(store, "b") >= 2
        assert [event.tenant_id for event in store.changes(head, wait=1)][-1] == "b"

    def _gives_up(self, verb: Callable[[], object]) -> bool:
        return in_time(partial(self._refused, verb), self.TIMEOUT)

    def _refused(self, verb: Callable[[], object]) -> float:
        began = time.monotonic()
        with pytest.raises(StoreUnavailable):
            verb()
        return time.monotonic() - began

    def test_a_wrong_credential_is_denied(self, store: ConfigStore) -> None:
        """By every verb, and no message repeats it."""
        stranger, secret = self.denied(store)
        for verb in verbs(stranger, Head("e", 1, "c")):
            with pytest.raises(Denied) as caught:
                verb()
            assert secret not in str(caught.value)
        stranger.close()
