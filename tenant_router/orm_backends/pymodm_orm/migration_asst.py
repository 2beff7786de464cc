"""PyModm's migration assistant."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pymodm import MongoModel
from pymodm.common import _DOCUMENT_REGISTRY
from pymodm.connection import _get_db

from tenant_router.orm_backends.mongo.migration_asst import IndexMigrationAsst


class PymodmMigrationAsst(IndexMigrationAsst):
    """Creates the ``indexes`` of each model's ``Meta``.

    PyModm keeps every model in ``pymodm.common._DOCUMENT_REGISTRY``, by its dotted name.
    """

    def models(self, alias: str) -> Iterable[type]:
        """The models of ``alias`` that declare indexes."""
        for model in list(_DOCUMENT_REGISTRY.values()):
            options = model._mongometa
            if issubclass(model, MongoModel) and options.connection_alias == alias and options.indexes:
                yield model

    def create_indexes(self, model: Any) -> None:
        """Create what is missing of a model's indexes."""
        options = model._mongometa
        _get_db(options.connection_alias)[options.collection_name].create_indexes(options.indexes)
