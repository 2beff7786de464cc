"""MongoEngine's migration assistant."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mongoengine import Document
from mongoengine.base.common import _document_registry

from tenant_router.orm_backends.mongo.migration_asst import IndexMigrationAsst
from tenant_router.orm_backends.mongoengine_orm.switch_db import alias_of


class MongoengineMigrationAsst(IndexMigrationAsst):
    """Calls ``ensure_indexes()`` of each document class, of those with ``auto_create_index`` off too.

    MongoEngine keeps every class in ``mongoengine.base.common._document_registry``.
    """

    def models(self, alias: str) -> Iterable[type]:
        """The document classes of ``alias`` that are not abstract."""
        for document in dict.fromkeys(_document_registry.values()):
            if issubclass(document, Document) and not document._meta.get("abstract") and alias_of(document) == alias:
                yield document

    def create_indexes(self, model: Any) -> None:
        """Create what is missing of a class's indexes."""
        model.ensure_indexes()
