"""Where records lead: whether to another database than before, and to which that nobody else may have."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tenant_router.orm_backends.base import BaseOrmManager
from tenant_router.orm_backends.places import Place, Places, section


def leads_elsewhere(
    orms: Mapping[str, BaseOrmManager], tenant_id: str, before: Mapping[str, Any] | None, after: Mapping[str, Any]
) -> bool:
    """Whether any alias of any ORM has another database under ``after`` than under ``before`` (``None``: unreadable).

    Where a manager cannot say where a record leads, any difference counts.
    """
    return any(
        _differs(manager, tenant_id, section(before, orm_id), section(after, orm_id))
        for orm_id, manager in orms.items()
    )


def exclusive_places(
    orms: Mapping[str, BaseOrmManager], tenant_id: str, record: Mapping[str, Any] | None
) -> set[Place]:
    """The databases of a record that no other tenant may have at the same time, each with its kind."""
    exclusive = {name: manager for name, manager in orms.items() if not manager.options.get("ALLOW_SHARED_DATABASES")}
    return places(exclusive, tenant_id, record)


def places(orms: Mapping[str, BaseOrmManager], tenant_id: str, record: Mapping[str, Any] | None) -> set[Place]:
    """The databases of a record, each with its kind."""
    return {
        (manager.location_kind or orm_id, *place)
        for orm_id, manager in orms.items()
        for _, place in manager.locations(tenant_id, section(record, orm_id))
    }


class Occupied:
    """The places, as of :func:`exclusive_places`, that are not free."""

    def __init__(self, orms: Mapping[str, BaseOrmManager], places: Iterable[Place]) -> None:
        nested = {manager.location_kind or orm_id: manager.nested_locations for orm_id, manager in orms.items()}
        by_kind: dict[str, set[Place]] = {kind: set() for kind in nested}
        for kind, *place in places:
            by_kind[kind].add(tuple(place))
        self._by_kind = {
            kind: Places(nested[kind], (("somebody", place) for place in found)) for kind, found in by_kind.items()
        }

    def overlaps(self, places: Iterable[Place]) -> bool:
        """Whether any of ``places`` is not free."""
        return any(True for kind, *place in places for _ in self._by_kind[kind].others("", tuple(place)))


def _differs(manager: BaseOrmManager, tenant_id: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    old, new = _places(manager, tenant_id, before), _places(manager, tenant_id, after)
    return any(
        before.get(alias) != after.get(alias) and new[alias].isdisjoint(old[alias])
        for alias in manager.template_aliases
    )


def _places(manager: BaseOrmManager, tenant_id: str, config: Mapping[str, Any]) -> dict[str, set[Place]]:
    """By template alias; those of one database that has several hosts have one in common with any of its spellings."""
    found: dict[str, set[Place]] = {alias: set() for alias in manager.template_aliases}
    for alias, place in manager.locations(tenant_id, config):
        found[alias].add(place)
    return found
