"""The base of MongoDB's migration assistants: they create the models' indexes in every database."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from contextlib import nullcontext
from typing import Any

from tenant_router import identity
from tenant_router.context_decorators import tenant_context_bind
from tenant_router.orm_backends.base import BaseOrmMigrationAsst
from tenant_router.tenant_context import TenantContext


class IndexMigrationAsst(BaseOrmMigrationAsst):
    """Creates the indexes of all models in each tenant's database, then in each reserved alias's."""

    @abstractmethod
    def models(self, alias: str) -> Iterable[type]:
        """The models of ``alias`` that declare indexes."""

    @abstractmethod
    def create_indexes(self, model: Any) -> None:
        """Create what is missing of a model's indexes, in the database that is bound."""

    def perform_migrate(self) -> None:
        """Go through all databases; one that fails is reported and the next is tried."""
        for context in self.run.contexts:
            for template in self.manager.template_aliases:
                self._migrate(template, identity.alias_for(context.id, template), context)
        for alias in self.manager.reserved_aliases if self.run.reserved else ():
            self._migrate(alias, alias, None)

    def _migrate(self, alias: str, name: str, context: TenantContext | None) -> None:
        try:
            with tenant_context_bind(context) if context else nullcontext():
                self._each(alias, name)
        except Exception as error:  # one tenant's failure, of whatever kind, must not stop the others
            self.run.report(name, error)
        else:
            self.run.report(name, None)

    def _each(self, alias: str, name: str) -> None:
        for model in self.models(alias):
            if self.run.plan:
                self.run.write(
                    f"{self.named(name)}: would create the indexes of {model.__module__}.{model.__qualname__}"
                )
            else:
                self.create_indexes(model)
