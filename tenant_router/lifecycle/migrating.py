"""Migrating the databases of one tenant that is being created, and those that are copied for new ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tenant_router.exceptions import ProvisioningError, one_line
from tenant_router.fleet.ledger import Ledger, interrupted
from tenant_router.fleet.locks import Locks
from tenant_router.orm_backends.base import BaseOrmManager, MigrationRun
from tenant_router.runtime import Runtime
from tenant_router.tenant_context import TenantContext


class Migrator:
    """Does it as ``migrate_all`` does: known to the ledger, and with the same locks."""

    def __init__(self, runtime: Runtime, locks: Locks) -> None:
        self._ledger, self._locks = Ledger(runtime.store), locks

    def migrate(self, managers: Iterable[BaseOrmManager], context: TenantContext) -> None:
        """Migrate what is not known to need nothing. Raises ``ProvisioningError`` with the first failure."""
        for manager in managers:
            wanted = self.fingerprints(manager, context)
            noted = self._ledger.read(wanted)
            for alias in wanted:
                self._check_whole(alias, interrupted(noted.get(alias)))
            if not wanted or noted != wanted:
                self._run(manager, context)

    def is_current(self, manager: BaseOrmManager, context: TenantContext) -> Mapping[str, str]:
        """What the ledger has of a tenant's databases, if none of them needs anything; else nothing."""
        wanted = self.fingerprints(manager, context)
        return wanted if wanted and self._ledger.read(wanted) == wanted else {}

    def fingerprints(self, manager: BaseOrmManager, context: TenantContext) -> dict[str, str]:
        """What the ledger would have of the databases of a tenant that need nothing."""
        assistant = manager.migration_asst if manager.migrates else None
        return dict(assistant.up_to_date(context)) if assistant else {}

    def note(self, fingerprints: Mapping[str, str | None]) -> None:
        """Tell the ledger what databases are like."""
        for alias, fingerprint in fingerprints.items():
            self._ledger.write(alias, fingerprint)

    def _run(self, manager: BaseOrmManager, context: TenantContext) -> None:
        failures: list[str] = []

        def report(alias: str, error: BaseException | None, step: str = "") -> None:
            if error is not None:
                failures.append(f"{alias} ({manager.orm_id}): {f'{step}: ' if step else ''}{one_line(error)}")

        run = MigrationRun([context], reserved=False, verbosity=0, write=lambda line: None, report=report)
        manager.migrate_to_all(run._replace(holding=self._locks.holding, under_way=self._ledger.under_way))
        if failures:
            raise ProvisioningError(failures[0])

    def _check_whole(self, alias: str, migration: str) -> None:
        if migration:
            raise ProvisioningError(
                f"{alias}: {migration} was killed in the middle, and the database cannot roll it back"
            )
