"""``switch_db`` and ``switch_collection`` without globals: a class is switched in one unit of work only."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any

from mongoengine.connection import DEFAULT_CONNECTION_NAME


class Switch:
    """What ``switch_db`` and ``switch_collection`` have changed for a class, in one unit of work."""

    def __init__(self, alias: str | None, name: str | None) -> None:
        self.alias, self.name = alias, name
        self.collection: Any = None


_switched: ContextVar[Mapping[type, Switch]] = ContextVar(
    "tenant_router.mongoengine.switched", default=MappingProxyType({})
)


def current_switch(document: Any) -> Switch | None:
    """How a class is switched here, if it is."""
    return _switched.get().get(document)


def nothing_is_switched() -> bool:
    """Whether no class at all is switched here."""
    return not _switched.get()


def alias_of(document: Any) -> str:
    """The connection alias of a document class."""
    switch = current_switch(document)
    if switch is not None and switch.alias is not None:
        return switch.alias
    return getattr(document, "_meta", {}).get("db_alias", DEFAULT_CONNECTION_NAME)  # type: ignore[no-any-return]


def push_switch(document: type, switch: Switch) -> Switch | None:
    """Switch a class; returns the switch that was in force, for :func:`pop_switch`."""
    switched = _switched.get()
    _switched.set({**switched, document: switch})
    return switched.get(document)


def pop_switch(document: type, outer: Switch | None) -> None:
    """Undo :func:`push_switch`."""
    switched = {key: value for key, value in _switched.get().items() if key is not document}
    _switched.set(switched if outer is None else {**switched, document: outer})


def switch_to(document: type, alias: str | None = None, name: str | None = None) -> Switch | None:
    """Switch a class to another database or collection, on top of what is switched already."""
    outer = _switched.get().get(document) or Switch(None, None)
    return push_switch(document, Switch(alias or outer.alias, name or outer.name))
