"""What creating a tenant and undoing that have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tenant_router.config_store import codec
from tenant_router.config_store.base import Op, StoredRecord
from tenant_router.exceptions import ProvisioningError, TenantNotFound, one_line
from tenant_router.fleet.locks import Locks
from tenant_router.identity import check_tenant_id
from tenant_router.lifecycle import begun as steps
from tenant_router.lifecycle.begun import Begun, Notes
from tenant_router.lifecycle.migrating import Migrator
from tenant_router.lifecycle.plan import Plan
from tenant_router.lifecycle.writer import Writer
from tenant_router.orm_backends.base import DatabaseIdentity
from tenant_router.runtime import Runtime

Tell = Callable[[str], None]


class Work:
    """On one tenant: its note, its record, its lock."""

    def __init__(self, router: Runtime, tenant_id: str, tell: Tell = lambda step: None) -> None:
        self.tenant_id, self._tell = check_tenant_id(tenant_id), tell
        self._runtime, self._service, self._writer = router, router.conf.service, Writer(router)
        self._notes, self._locks = Notes(router.store), Locks(router.store)
        self._migrator = Migrator(router, self._locks)

    def _held(self) -> StoredRecord | None:
        self._writer.index()  # which finds out of which history the store is
        try:
            return self._writer.record(self.tenant_id)
        except TenantNotFound:
            return None

    def _stamp(self, begun: Begun, alias: str) -> DatabaseIdentity:
        return DatabaseIdentity(self._service, self.tenant_id, begun.incarnation, alias)

    def _commit(self, op: Op) -> int:
        return self._writer.commit(Plan(ops=[op], epoch=self._writer.epoch))

    @contextmanager
    def _explained(self, step: str) -> Iterator[None]:
        """Say of an error where it has stopped, and how it goes on."""
        try:
            yield
        except Exception as error:
            what = str(error) if isinstance(error, ProvisioningError) else one_line(error)
            how = (
                "--undo again goes on"
                if step == steps.UNDO
                else "the same command goes on, --undo removes what it made"
            )
            raise ProvisioningError(f"{self.tenant_id} stopped at the step {step!r}: {what} ({how})") from error


def is_of(held: StoredRecord, begun: Begun) -> bool:
    """Whether a record is that of a note."""
    return codec.incarnation_of(held.body) == begun.incarnation
