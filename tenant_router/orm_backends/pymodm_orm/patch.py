"""PyModm, made tenant-aware in place.

What is patched and relied on, all of PyModm 0.4.3; tests/integration/test_pymodm_facts.py fails when it changes:

- ``connection._CONNECTIONS`` is where every alias is looked up, at each use (``_get_connection``).
- ``MongoOptions._indexes_created`` remembers once per model, for all databases, that its indexes exist.
- ``FileField.storage`` keeps the first GridFS bucket that is used, for all databases, and nothing else reads it
  before ``FileField.__get__`` has looked whether it is ``None``.
- ``switch_connection`` sets ``MongoOptions.connection_alias``, for all threads.
- ``no_auto_dereference``, which every ``full_clean()`` uses, sets ``MongoOptions._auto_dereference`` for all threads:
  two that meet leave it off for good.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any
from weakref import WeakSet

from gridfs import GridFSBucket
from pymodm import connection
from pymodm.base.options import MongoOptions
from pymodm.context_managers import switch_connection
from pymodm.fields import FileField
from pymodm.files import GridFSStorage

from tenant_router.orm_backends.mongo.databases import OpenDatabase
from tenant_router.orm_backends.mongo.manager import MongoManager

_switched: ContextVar[Mapping[Any, str]] = ContextVar("tenant_router.pymodm.switched", default=MappingProxyType({}))
_not_dereferenced: ContextVar[frozenset[Any]] = ContextVar("tenant_router.pymodm.not_dereferenced", default=frozenset())


class Connections(dict[str, Any]):
    """``_CONNECTIONS``: template aliases lead to the bound tenant, all others are as PyModm has them."""

    def __init__(self, original: dict[str, Any], manager: MongoManager) -> None:
        replaced = manager.replaced_aliases
        self.hidden = {alias: info for alias, info in original.items() if alias in replaced}
        super().__init__({alias: info for alias, info in original.items() if alias not in replaced})
        self._manager, self._templates, self._database_of = manager, manager.templates, manager.database_of
        for info in self.hidden.values():
            info.database.client.close()

    def __missing__(self, alias: str) -> Any:
        if alias in self._templates:
            return self._database_of(alias)
        return self._manager.central_database(alias)

    def __setitem__(self, alias: str, info: Any) -> None:
        """``connect()``: what a replaced alias leads to by itself is never used."""
        if alias not in self._manager.replaced_aliases:
            super().__setitem__(alias, info)
            return
        self.hidden[alias] = info
        info.database.client.close()


class _Alias:
    """``MongoOptions.connection_alias``: what ``switch_connection`` does is seen by its own unit of work only."""

    def __get__(self, options: Any, owner: type) -> Any:
        if options is None:
            return self
        switched = _switched.get()
        own = options.__dict__["connection_alias"]
        return switched.get(options, own) if switched else own

    def __set__(self, options: Any, alias: str) -> None:
        options.__dict__["connection_alias"] = alias


class _AutoDereference:
    """``MongoOptions._auto_dereference``, separate for each unit of work."""

    def __get__(self, options: Any, owner: type) -> Any:
        return self if options is None else options not in _not_dereferenced.get()

    def __set__(self, options: Any, on: bool) -> None:
        options.__dict__.setdefault("_auto_dereference", True)  # for after uninstall()
        found = _not_dereferenced.get()
        if on == (options in found):
            _not_dereferenced.set(found - {options} if on else found | {options})


class _PerDatabase:
    """An attribute of models or fields that PyModm sets once; here, once for each tenant's database."""

    def __init__(self, name: str, manager: MongoManager) -> None:
        self.name, self.manager = name, manager

    def open_database(self, options: Any) -> OpenDatabase | None:
        """The bound tenant's database of a model, ``None`` for a model that is no tenant's."""
        alias = options.connection_alias
        return self.manager.database_of(alias).open() if alias in self.manager.templates else None


class _IndexesCreated(_PerDatabase):
    def __get__(self, options: Any, owner: type) -> Any:
        if options is None:
            return self
        opened = self.open_database(options)
        if opened is None:
            return options.__dict__[self.name]
        return options in opened.memo.get(self.name, ())

    def __set__(self, options: Any, created: bool) -> None:
        opened = self.open_database(options) if created else None
        if opened is None:
            options.__dict__[self.name] = created
        else:
            opened.memo.setdefault(self.name, WeakSet()).add(options)


class _Storage(_PerDatabase):
    def __get__(self, field: Any, owner: type) -> Any:
        if field is None:
            return self
        chosen = field.__dict__[self.name]
        opened = None if chosen is not None else self.open_database(field.model._mongometa)
        if opened is None:
            return chosen
        found = opened.memo.get(self.name)
        return found or opened.memo.setdefault(self.name, GridFSStorage(GridFSBucket(opened.database)))

    def __set__(self, field: Any, storage: Any) -> None:
        field.__dict__[self.name] = storage


def _enter(self: Any) -> Any:
    _switched.set({**_switched.get(), self.model._mongometa: self.target_connection_alias})
    return self.model


def _exit(self: Any, kind: Any, error: Any, trace: Any) -> None:
    options, others = self.model._mongometa, dict(_switched.get())
    others.pop(options, None)
    if self.original_connection_alias != options.__dict__["connection_alias"]:
        others[options] = self.original_connection_alias
    _switched.set(others)


_undo: list[Callable[[], None]] = []


def install(manager: MongoManager) -> None:
    """Take PyModm over; idempotent."""
    if _undo:
        return
    original = connection._CONNECTIONS
    replaced = Connections(original, manager)
    connection._CONNECTIONS = replaced
    _undo.append(lambda: _restore(original, replaced))
    _replace(MongoOptions, "connection_alias", _Alias())
    _replace(MongoOptions, "_auto_dereference", _AutoDereference())
    _replace(MongoOptions, "_indexes_created", _IndexesCreated("_indexes_created", manager))
    _replace(FileField, "storage", _Storage("storage", manager))
    _replace(switch_connection, "__enter__", _enter)
    _replace(switch_connection, "__exit__", _exit)


def uninstall() -> None:
    """Undo :func:`install`."""
    while _undo:
        _undo.pop()()


def _restore(original: dict[str, Any], replaced: Connections) -> None:
    original.clear()
    original.update(replaced | replaced.hidden)
    connection._CONNECTIONS = original


def _replace(owner: Any, name: str, value: Any) -> None:
    existed, before = name in vars(owner), vars(owner).get(name)
    setattr(owner, name, value)
    _undo.append(lambda: setattr(owner, name, before) if existed else delattr(owner, name))
