"""Tests of leases, claims and notes, which a backend may leave out."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import pytest

from tenant_router.config_store.base import ConfigStore
from tenant_router.exceptions import EpochChanged
from tenant_router.testing.store_contract.hooks import Hooks


class BesideTheHistory(Hooks):
    """Leases and claims end by themselves, notes stay, and none of them is a part of the history."""

    def test_a_lease_ends_by_itself(self, store: ConfigStore) -> None:
        """A lease is read with its age, renewed, given up, forgotten, and is no part of the history."""
        if not store.keeps_leases:
            pytest.skip("this backend keeps no leases")
        assert store.leases() == {}
        said = {name: _said(store, name, value, 600) for name, value in (("one", "says | this"), ("two", "ü"))}
        assert [store.lease("two", "ü", 600), store.lease("more", "", 600), store.lease("more", "", 0)] == [2, 3, 2]
        said["two"] = _said(store, "two", "ü", 600)
        time.sleep(0.1)
        assert _values(store, said) == {"one": "says | this", "two": "ü"}
        said["one"] = _said(store, "one", "again", 600)
        assert _values(store, said) == {"one": "again", "two": "ü"}
        began, _ = _said(store, "three", "briefly", 0.3)
        while "three" in store.leases():
            assert time.monotonic() - began < 30
            time.sleep(0.02)
        assert time.monotonic() - began > 0.29
        assert _values(store, said) == {"one": "again", "two": "ü"}
        for name in said:
            store.lease(name, "", 0)
        assert store.leases() == {}
        with pytest.raises(EpochChanged):
            store.head()

    def test_one_of_many_has_a_claim(self, store: ConfigStore) -> None:
        """A claim is had by one of those who ask at once, may be given back, ends, and is no part of the history."""
        if not store.keeps_claims:
            pytest.skip("this backend keeps no claims")
        assert store.claimed("work") == set()
        with ThreadPoolExecutor(8) as pool:
            had = list(pool.map(lambda number: store.claim("work", f"{number % 5}", 60), range(200)))
        assert had.count(True) == 5
        assert store.claimed("work") == {"0", "1", "2", "3", "4"}
        store.release("work", "3")
        store.release("work", "unknown")
        assert store.claim("work", "3", 60)
        assert [store.claim("work", "lost answer", 60, by) for by in ("x", "y", "x", "")] == [True, False, True, False]
        store.release("work", "lost answer", by="y")
        assert not store.claim("work", "lost answer", 60, by="y")
        store.release("work", "lost answer", by="x")
        assert store.claim("work", "lost answer", 60, by="y")
        _ends_although_others_ask(store)
        with pytest.raises(EpochChanged):
            store.head()

    def test_notes_stay_until_they_are_removed(self, store: ConfigStore) -> None:
        """Books of notes are apart from each other, are read by name or by page, and are no part of the history."""
        if not store.keeps_notes:
            pytest.skip("this backend keeps no notes")
        many = {f"tenant-{number}": f"ü {number}" for number in range(1_500)}
        assert store.notes("book", ["tenant-1"]) == {}
        assert store.scan_notes("book", "", 100) == ("", {})
        store.write_notes("book", many)
        store.write_notes("other", {"tenant-1": "another"})
        store.write_notes("book", {"tenant-1": "again", "tenant-2": None, "unknown": None, "empty": ""})
        expected = {**many, "tenant-1": "again", "empty": ""}
        del expected["tenant-2"]
        assert store.notes("book", ["tenant-1", "tenant-2", "empty"]) == {"tenant-1": "again", "empty": ""}
        assert store.notes("book", []) == {}
        assert _all_notes(store, "book") == expected
        assert _all_notes(store, "other") == {"tenant-1": "another"}
        with pytest.raises(EpochChanged):
            store.head()


def _ends_although_others_ask(store: ConfigStore) -> None:
    """A claim ends when its time is over, and who asks for it in vain meanwhile does not make it last."""
    assert store.claim("other work", "3", 0.3, by="x")
    began = time.monotonic()
    while not store.claim("other work", "3", 60, by="y"):
        assert time.monotonic() - began < 30
        time.sleep(0.05)


def _all_notes(store: ConfigStore, book: str) -> dict[str, str]:
    cursor, found = store.scan_notes(book, "", 100)
    while cursor:
        cursor, page = store.scan_notes(book, cursor, 100)
        found = {**found, **page}
    return dict(found)


def _said(store: ConfigStore, name: str, value: str, seconds: float) -> tuple[float, float]:
    """Lease it; returns between which moments that was."""
    began = time.monotonic()
    store.lease(name, value, seconds)
    return began, time.monotonic()


def _values(store: ConfigStore, said: Mapping[str, tuple[float, float]]) -> dict[str, str]:
    """What is leased now, by name; each lease is as old as it can be by the moments of ``said``."""
    asked, leases, answered = time.monotonic(), store.leases(), time.monotonic()
    for name, (began, ended) in said.items():
        assert asked - ended - 0.05 < leases[name].age < answered - began + 0.05
    return {name: lease.value for name, lease in leases.items()}
