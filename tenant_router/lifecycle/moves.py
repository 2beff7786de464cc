"""Where records lead: whether to another database than before, and to which that nobody else may have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tenant_router.orm_backends.base import BaseOrmManager
from tenant_router.secrets import revealed


def leads_elsewhere(
    orms: Mapping[str, BaseOrmManager], before: Mapping[str, Any] | None, after: Mapping[str, Any]
) -> bool:
    """Whether any alias of any ORM has another database under ``after`` than under ``before`` (``None``: unreadable).

    Where a manager cannot say where a record leads, any difference counts.
    """
    return any(_differs(manager, section(before, orm_id), section(after, orm_id)) for orm_id, manager in orms.items())


def exclusive_places(orms: Mapping[str, BaseOrmManager], record: Mapping[str, Any] | None) -> set[tuple[str, ...]]:
    """The databases of a record that no other tenant may have at the same time, each with its kind."""
    return {
        (manager.location_kind or orm_id, *place)
        for orm_id, manager in orms.items()
        if not manager.options.get("ALLOW_SHARED_DATABASES")
        for _, place in manager.locations(section(record, orm_id))
    }


def _differs(manager: BaseOrmManager, before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    old, new = _places(manager, before), _places(manager, after)
    return any(
        before.get(alias) != after.get(alias) and new[alias].isdisjoint(old[alias])
        for alias in manager.template_aliases
    )


def _places(manager: BaseOrmManager, config: Mapping[str, Any]) -> dict[str, set[tuple[str, ...]]]:
    """By template alias; those of one database that has several hosts have one in common with any of its spellings."""
    found: dict[str, set[tuple[str, ...]]] = {alias: set() for alias in manager.template_aliases}
    for alias, place in manager.locations(config):
        found[alias].add(place)
    return found


def section(record: Mapping[str, Any] | None, orm_id: str) -> Mapping[str, Any]:
    """What a record says for one ORM, as managers read it, and as far as it is a record at all."""
    found = _object(_object(record).get("orm_config")).get(orm_id)
    return {alias: revealed(config) for alias, config in _object(found).items() if isinstance(config, Mapping)}


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
