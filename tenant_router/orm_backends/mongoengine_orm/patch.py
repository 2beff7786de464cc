"""MongoEngine, made tenant-aware in place.

What is patched and relied on, all of MongoEngine 0.29; tests/integration/test_mongoengine_facts.py fails when it
changes:

- ``connection._dbs``, ``_connections`` and ``_connection_settings`` are looked up by alias at each use, through the
  names in that module.
- ``Document._get_collection`` caches in the class attribute ``_collection``, which the metaclass makes for each class
  and ``_disconnect``, ``drop_collection`` and the two switches set to ``None``. ``save()`` reads it of the instance.
- ``switch_db`` changes ``_meta["db_alias"]`` and ``switch_collection`` replaces ``_get_collection_name``, for all
  threads. ``Document.switch_db`` and ``.switch_collection`` use them and leave the collection with the instance.
- A query set keeps its collection in ``_collection_obj`` from the start, and its cursor in ``_cursor_obj`` once it was
  counted or read; a copy of it takes both over. Nothing keeps them under other names. What a query set has read is in
  ``_result_cache``, ``_has_more`` and ``_len``, which no copy takes over and only the methods that ``querysets.py``
  replaces use.
- ``GridFSProxy.fs`` is where all its methods find their files, and ``get()`` takes any error for a missing file.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mongoengine import connection
from mongoengine.base.metaclasses import DocumentMetaclass
from mongoengine.context_managers import switch_collection, switch_db
from mongoengine.document import Document
from mongoengine.fields import GridFSProxy

from tenant_router.orm_backends.mongo.manager import MongoManager
from tenant_router.orm_backends.mongoengine_orm import documents as _documents
from tenant_router.orm_backends.mongoengine_orm import querysets
from tenant_router.orm_backends.mongoengine_orm import switch_db as _switch_db
from tenant_router.orm_backends.mongoengine_orm.aliases import (
    AliasDict,
    Connections,
    ConnectionSettings,
    Databases,
)
from tenant_router.orm_backends.mongoengine_orm.documents import (
    ClassCollection,
    DocumentClasses,
    InstanceCollection,
)


def _enter_db(self: Any) -> Any:
    self._tr_outer = _switch_db.switch_to(self.cls, alias=self.db_alias)
    return self.cls


def _enter_collection(self: Any) -> Any:
    self._tr_outer = _switch_db.switch_to(self.cls, name=self.collection_name)
    return self.cls


def _exit(self: Any, kind: Any, error: Any, trace: Any) -> None:
    _switch_db.pop_switch(self.cls, self._tr_outer)


def _get_file(original: Callable[..., Any]) -> Callable[..., Any]:
    def get(proxy: Any, grid_id: Any = None) -> Any:
        if grid_id or proxy.grid_id is not None:
            _ = proxy.fs  # raises what get() would take for a missing file
        return original(proxy, grid_id)

    return get


_undo: list[Callable[[], None]] = []


def install(manager: MongoManager) -> None:
    """Take MongoEngine over; idempotent."""
    if _undo:
        return
    settings = ConnectionSettings(connection._connection_settings, manager)
    _replace_aliases("_connection_settings", settings)
    _replace_aliases("_connections", Connections(connection._connections, manager))
    _replace_aliases("_dbs", Databases(connection._dbs, manager, settings))
    documents = DocumentClasses(manager)
    _replace_document(documents)
    for switch, enter in ((switch_db, _enter_db), (switch_collection, _enter_collection)):
        _replace(switch, "__enter__", enter)
        _replace(switch, "__exit__", _exit)
    for owner, name, replacement in [*querysets.replacements(documents)]:
        _replace(owner, name, replacement)
    _replace(GridFSProxy, "fs", _documents.file_system(documents, GridFSProxy.fs.fget))
    _replace(GridFSProxy, "get", _get_file(GridFSProxy.get))


def uninstall() -> None:
    """Undo :func:`install`."""
    while _undo:
        _undo.pop()()


def _replace_document(documents: DocumentClasses) -> None:
    get_collection = Document._get_collection.__func__
    get_name = Document._get_collection_name.__func__
    _replace(Document, "_get_db", classmethod(_documents.get_db_of))
    _replace(Document, "_get_collection", classmethod(_documents.collection_getter(documents, get_collection)))
    _replace(Document, "_get_collection_name", classmethod(_documents.name_getter(get_name)))
    for name in ("switch_db", "switch_collection"):
        _replace(Document, name, _documents.instance_switcher(documents, vars(Document)[name]))
    # The class first: once the metaclass has it, setting it there does not reach the class any more.
    _replace(Document, "_collection", InstanceCollection(), otherwise=None)
    _replace(DocumentMetaclass, "_collection", ClassCollection(documents))


def _replace_aliases(name: str, replacement: AliasDict) -> None:
    original = getattr(connection, name)
    setattr(connection, name, replacement)

    def restore() -> None:
        original.clear()
        original.update({**replacement, **replacement.hidden})
        setattr(connection, name, original)

    _undo.append(restore)


_ABSENT = object()


def _replace(owner: Any, name: str, value: Any, otherwise: Any = _ABSENT) -> None:
    before = vars(owner).get(name, otherwise)
    setattr(owner, name, value)
    _undo.append(lambda: delattr(owner, name) if before is _ABSENT else setattr(owner, name, before))
