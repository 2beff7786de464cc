"""The database and the collection of a MongoEngine document class, for the bound tenant."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from gridfs import GridFS
from mongoengine.connection import DEFAULT_CONNECTION_NAME, get_db

from tenant_router import context as _context
from tenant_router.orm_backends.mongo.bound_client import BoundClient
from tenant_router.orm_backends.mongo.databases import OpenDatabase, TenantDatabase
from tenant_router.orm_backends.mongo.manager import MongoManager
from tenant_router.orm_backends.mongoengine_orm.aliases import TenantProxy
from tenant_router.orm_backends.mongoengine_orm.switch_db import (
    Switch,
    alias_of,
    current_switch,
    nothing_is_switched,
    pop_switch,
    push_switch,
)


class DocumentClasses:
    """Finds the databases and collections of document classes, while a manager is installed."""

    def __init__(self, manager: MongoManager) -> None:
        self.manager = manager
        self.central: WeakKeyDictionary[type, Any] = WeakKeyDictionary()

    def open_database(self, alias: str) -> OpenDatabase | None:
        """The bound tenant's database for ``alias``, ``None`` if that is no template alias.

        Raises ``TenantContextMissing``.
        """
        return self.manager.database_of(alias).open() if alias in self.manager.templates else None

    def current(self, collection: Any) -> Any:
        """``collection`` if it may be used now, else the bound tenant's of that alias and name."""
        home = home_of(collection)
        if home is None:
            return collection
        now = self.manager.database_of(home.alias)
        if now is home:
            return collection
        return now.database.get_collection(
            collection.name,
            codec_options=collection.codec_options,
            read_preference=collection.read_preference,
            write_concern=collection.write_concern,
            read_concern=collection.read_concern,
        )

    def is_current(self, collection: Any) -> bool:
        """Whether ``collection`` is no tenant's, or the bound tenant's."""
        home = home_of(collection)
        if home is None:
            return True
        return _context.current() is not None and self.manager.database_of(home.alias) is home

    def proxy(self, document: type, alias: str) -> TenantProxy:
        """A lazy proxy of a class's collection, of the tenant that is bound when it is used."""
        switch = current_switch(document) or Switch(None, None)

        def resolve() -> Any:
            self.open_database(alias)
            outer = push_switch(document, Switch(alias, switch.name))
            try:
                return document._get_collection()  # type: ignore[attr-defined]
            finally:
                pop_switch(document, outer)

        return TenantProxy(resolve)


def home_of(collection: Any) -> TenantDatabase | None:
    """The tenant's database in which ``collection`` is; ``None`` if it is no tenant's."""
    database = getattr(collection, "_Collection__database", None)  # asked often: faster than the properties
    client = getattr(database, "_Database__client", None)
    return client._tr_home if type(client) is BoundClient else None


class ClassCollection:
    """``_collection`` of document classes, kept for each tenant's database separately.

    On the metaclass, because a class's own attribute would hide anything else.
    """

    def __init__(self, documents: DocumentClasses) -> None:
        self._documents = documents

    def __get__(self, document: Any, meta: type) -> Any:
        if document is None:
            return self
        switch = current_switch(document)
        if switch is not None:
            usable = switch.collection is not None and self._documents.is_current(switch.collection)
            return switch.collection if usable else None
        held = self._held(document)
        return held.get(document) if held is not None else None

    def __set__(self, document: Any, collection: Any) -> None:
        switch = current_switch(document)
        held = self._held(document)
        if switch is not None:
            switch.collection = collection
        elif held is not None and collection is not None:
            held[document] = collection
        elif held is not None:
            held.pop(document, None)

    def _held(self, document: Any) -> Any:
        alias = alias_of(document)
        if alias not in self._documents.manager.templates:
            return self._documents.central
        if _context.current() is None:  # as when a class is made
            return None
        return self._documents.manager.database_of(alias).open().collections


class InstanceCollection:
    """``_collection`` of documents that have not been switched: their class's."""

    def __get__(self, instance: Any, owner: Any) -> Any:
        return owner._collection


def get_db_of(document: Any) -> Any:
    """``Document._get_db``."""
    return get_db(alias_of(document))


def collection_getter(documents: DocumentClasses, original: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """``Document._get_collection``; without a tenant it answers a proxy, which can be kept but not used."""
    manager = documents.manager

    def get_collection(document: Any) -> Any:
        bound = _context.stack.get() or _context.ambient
        if bound and bound[0].over:
            bound = _context.bound()
        if bound and nothing_is_switched():  # what nearly every call finds
            alias = document._meta.get("db_alias", DEFAULT_CONNECTION_NAME)
            if alias in manager.templates:
                found = bound[-1].parts[manager.orm_id][alias].open().collections.get(document)
                if found is not None:
                    return found
        alias = alias_of(document)
        return original(document) if bound or alias not in manager.templates else documents.proxy(document, alias)

    return get_collection


def name_getter(original: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """``Document._get_collection_name``."""

    def get_collection_name(document: Any) -> Any:
        switch = current_switch(document)
        return switch.name if switch is not None and switch.name else original(document)

    return get_collection_name


def instance_switcher(documents: DocumentClasses, original: Callable[..., Any]) -> Callable[..., Any]:
    """``Document.switch_db`` and ``.switch_collection``: the document stays with the alias, not with the tenant."""

    def switch(document: Any, *args: Any, **kwargs: Any) -> Any:
        original(document, *args, **kwargs)
        collection = document.__dict__["_collection"]
        if isinstance(collection, TenantProxy):
            return document
        document._get_collection = lambda: documents.current(collection)
        document._get_db = lambda: documents.current(collection).database
        return document

    return switch


def file_system(documents: DocumentClasses, original: Callable[[Any], Any]) -> property:
    """``GridFSProxy.fs``."""

    def fs(proxy: Any) -> Any:
        opened = documents.open_database(proxy.db_alias)
        if opened is None:
            return original(proxy)
        key = ("gridfs", proxy.collection_name)
        found = opened.memo.get(key)
        return found or opened.memo.setdefault(key, GridFS(opened.database, proxy.collection_name))

    return property(fs)
