"""The Django ORM's migration assistant: ``migrate`` for every tenant, then for each reserved alias."""

from __future__ import annotations

from typing import Any

from django.core.management import call_command
from django.db import connections

from tenant_router import identity
from tenant_router.context_decorators import tenant_context_bind
from tenant_router.orm_backends.base import BaseOrmMigrationAsst


class DjangoMigrationAsst(BaseOrmMigrationAsst):
    """Runs Django's own ``migrate`` on each database; ``OPTIONS`` are passed to it."""

    def perform_migrate(self) -> None:
        """Migrate all databases; one that fails is reported and the next is tried."""
        for context in self.run.contexts:
            for template in self.manager.template_aliases:
                alias = identity.alias_for(context.id, template)
                with tenant_context_bind(context):
                    self._migrate(alias)
        for alias in self.manager.reserved_aliases if self.run.reserved else ():
            self._migrate(alias)

    def _migrate(self, alias: str) -> None:
        try:
            call_command("migrate", database=alias, interactive=False, **self._options())
        except Exception as error:  # one tenant's failure, of whatever kind, must not stop the others
            self.run.report(alias, error)
        else:
            self.run.report(alias, None)
        finally:
            connections[alias].close()

    def _options(self) -> dict[str, Any]:
        # The system checks are the same for every tenant: the command that runs us has made them.
        return {"plan": self.run.plan, "verbosity": self.run.verbosity, "skip_checks": True, **self.options}
