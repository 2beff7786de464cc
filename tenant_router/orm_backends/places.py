"""Which tenant has which place (a database, the names that begin with a prefix), and whose places overlap."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tenant_router.secrets import revealed

Place = tuple[str, ...]


class Places:
    """The places of many owners. Adding, removing and comparing one costs O(log n).

    Two places overlap where they are equal; with ``nested``, where the first part of one begins with the first part
    of the other and the rest is equal.
    """

    def __init__(self, nested: bool, owned: Iterable[tuple[str, Place]] = ()) -> None:
        self._nested = nested
        self._owners: dict[Place, dict[str, None]] = {}  # in the order of their coming
        self._of: dict[str, list[Place]] = {}
        for owner, place in owned:
            self._note(owner, place)
        self._sorted = sorted(map(_key, self._owners)) if nested else []

    def add(self, owner: str, place: Place) -> None:
        """``owner`` has ``place`` from now on, maybe besides others."""
        if place not in self._owners and self._nested:
            insort(self._sorted, _key(place))
        self._note(owner, place)

    def discard(self, owner: str) -> None:
        """``owner`` has nothing any more."""
        for place in self._of.pop(owner, ()):
            owners = self._owners[place]
            del owners[owner]
            if not owners:
                del self._owners[place]
                if self._nested:
                    del self._sorted[bisect_left(self._sorted, _key(place))]

    def others(self, owner: str, place: Place) -> Iterator[str]:
        """Who else has a place that overlaps ``place``."""
        for each in self._overlapping(place) if self._nested else (place,):
            yield from (other for other in self._owners.get(each, ()) if other != owner)

    # --- inside ---

    def _note(self, owner: str, place: Place) -> None:
        owners = self._owners.setdefault(place, {})
        if owner not in owners:
            owners[owner] = None
            self._of.setdefault(owner, []).append(place)

    def _overlapping(self, place: Place) -> Iterator[Place]:
        prefix, *where = place
        for end in range(len(prefix)):
            yield (prefix[:end], *where)
        for at in range(bisect_left(self._sorted, _key(place)), len(self._sorted)):
            found = self._sorted[at]
            if found[:-1] != tuple(where) or not found[-1].startswith(prefix):
                return
            yield (found[-1], *found[:-1])


def _key(place: Place) -> Place:
    """In the order of these, places stand right before those that begin with them."""
    return (*place[1:], place[0])


def section(record: Mapping[str, Any] | None, orm_id: str) -> Mapping[str, Any]:
    """What a record says for one ORM, as managers read it, and as far as it is a record at all."""
    found = _object(_object(record).get("orm_config")).get(orm_id)
    return {alias: revealed(config) for alias, config in _object(found).items() if isinstance(config, Mapping)}


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
