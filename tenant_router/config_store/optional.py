"""What a config store may keep beside the history of its tenants: none of it makes a revision.

A backend has all verbs of a group, and says so, or none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Lease(NamedTuple):
    """What a process said of itself, and how many seconds ago that was by the store's own clock."""

    value: str
    age: float


class OptionalVerbs:
    """The groups; without a backend's own they raise ``NotImplementedError``."""

    keeps_house = False
    """Whether the backend has the two verbs below. They change no history."""

    def purge(self, older_than: float) -> int:
        """Forget the tombstones that are older than so many seconds by the store's clock; returns how many.

        The last entry of an index stays, and so does a tombstone of unknown age.
        """
        raise NotImplementedError

    def insist(self, min_reader: int) -> None:
        """Refuse readers whose ``READS`` is below ``min_reader`` from now on."""
        raise NotImplementedError

    keeps_claims = False
    """Whether the backend has the three verbs below. They are no part of the history, and readers never see them."""

    def claim(self, name: str, member: str, seconds: float, by: str = "") -> bool:
        """Add ``member`` to the set ``name``; whether it was not in it, which is so for one of many who ask.

        Who says ``by`` whom it is may ask again, when an answer was lost or to keep it for longer: it still is so
        for that one. The whole set is forgotten ``seconds`` after the last claim that was granted.
        """
        raise NotImplementedError

    def claimed(self, name: str) -> set[str]:
        """The members of a set; an unknown one is empty."""
        raise NotImplementedError

    def release(self, name: str, member: str, by: str = "") -> None:
        """Take ``member`` out of the set again, if it is in it; with ``by`` only if that one has claimed it."""
        raise NotImplementedError

    keeps_leases = False
    """Whether the backend has the two verbs below. They are no part of the history either."""

    def lease(self, name: str, value: str, seconds: float) -> int:
        """Say ``value`` under ``name``: it is forgotten after ``seconds``, or at once when they are 0.

        Returns how many leases there are now.
        """
        raise NotImplementedError

    def leases(self) -> Mapping[str, Lease]:
        """What was said and is not forgotten yet. Only the store's clock counts, never one of those who ask."""
        raise NotImplementedError

    keeps_notes = False
    """Whether the backend has the three verbs below. They are no part of the history: readers never see them."""

    def notes(self, book: str, names: Sequence[str]) -> Mapping[str, str]:
        """Those of the notes ``names`` of a book that there are."""
        raise NotImplementedError

    def scan_notes(self, book: str, cursor: str, limit: int) -> tuple[str, Mapping[str, str]]:
        """One page of a book, from the cursor ``""`` until it comes back empty, as ``scan`` reads the index."""
        raise NotImplementedError

    def write_notes(self, book: str, notes: Mapping[str, str | None]) -> None:
        """Write all of ``notes``, or nothing; ``None`` removes one. They stay until they are removed."""
        raise NotImplementedError
