"""Whose a tenant's databases are: written into them first, and then into the tenant's record.

From the record on, every process compares. So a run that ends in between leaves a database that says whose it is and
nobody who asks; the next run goes on from there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from secrets import token_hex

from tenant_router.config_store import codec
from tenant_router.config_store.base import Op
from tenant_router.context_decorators import tenant_context_bind
from tenant_router.exceptions import WrongDatabase
from tenant_router.lifecycle.plan import Plan
from tenant_router.lifecycle.writer import Writer
from tenant_router.orm_backends.base import BaseOrmManager, DatabaseIdentity
from tenant_router.runtime import Runtime
from tenant_router.tenant_context import FixedContext

Consent = Callable[[str], None]  # asked with the sentence that says what would happen; raises if it must not


class Stamping:
    """Reads and writes the stamps of databases that a record names, published or not."""

    def __init__(self, runtime: Runtime, writer: Writer) -> None:
        self._runtime, self._writer = runtime, writer
        self._service = runtime.conf.service

    def adopt(self, tenant_id: str, consent: Consent) -> tuple[int, int]:
        """Stamp the databases of a tenant as its own, and have every process compare from now on.

        ``consent`` is asked before a database that says that it is somebody else's is taken over. Returns how many
        databases are stamped, and the revision of the record. Raises ``TenantNotFound``, ``RecordInvalid``,
        ``StoreError``, and what the drivers raise.
        """
        held = self._writer.record(tenant_id)
        op = Op(tenant_id, held.state, held.body, expect=held.rev)
        with self._unverified(op) as databases:
            found = [(manager, alias, manager.read_stamps(alias)) for manager, alias in databases]
            for _, alias, stamps in found:
                if others := self._of_others(tenant_id, stamps):
                    consent(f"the database that {tenant_id} has for {alias!r} is {others}; it becomes {tenant_id}'s")
            own = [one.incarnation for *_, stamps in found for one in stamps if one.tenant_id == tenant_id]
            incarnation = codec.incarnation_of(held.body) or next(iter(own), "") or token_hex(16)
            for manager, alias, stamps in found:
                self._write(manager, tenant_id, incarnation, alias, stamps)
        if codec.incarnation_of(held.body) == incarnation:
            return len(found), held.rev
        stamped = op._replace(body=codec.stamped(held.body, incarnation))
        return len(found), self._writer.commit(Plan(ops=[stamped], epoch=self._writer.epoch))

    def claim(self, op: Op) -> None:
        """Stamp the databases that the record of ``op`` leads to, where it is stamped and they are nobody's yet.

        Raises ``WrongDatabase`` for one that is somebody else's, and what the drivers raise.
        """
        incarnation = codec.incarnation_of(op.body)
        if not incarnation:
            return
        with self._unverified(op) as databases:
            for manager, alias in databases:
                stamps = manager.read_stamps(alias)
                if others := self._of_others(op.tenant_id, stamps):
                    raise WrongDatabase(f"the database for {alias!r} is {others}", op.tenant_id)
                self._write(manager, op.tenant_id, incarnation, alias, stamps)

    def _write(
        self, manager: BaseOrmManager, tenant_id: str, incarnation: str, alias: str, found: list[DatabaseIdentity]
    ) -> None:
        stamp = DatabaseIdentity(self._service, tenant_id, incarnation, alias)
        if stamp not in found or self._of_others(tenant_id, found):
            manager.write_stamp(alias, stamp)

    def _of_others(self, tenant_id: str, stamps: list[DatabaseIdentity]) -> str:
        others = [one for one in stamps if (one.service, one.tenant_id) != (self._service, tenant_id)]
        return ", ".join(f"that of tenant {one.tenant_id!r} of service {one.service!r}" for one in others)

    @contextmanager
    def _unverified(self, op: Op) -> Iterator[list[tuple[BaseOrmManager, str]]]:
        """Bind the record of ``op`` for connections that compare nothing, which are closed afterwards."""
        context = self._writer.context(op._replace(body=codec.stamped(op.body, "")))
        try:
            with tenant_context_bind(FixedContext(context.id, context.revision, context.parts)):
                managers = [manager for manager in self._runtime.orms.values() if manager.stamps]
                yield [(manager, alias) for manager in managers for alias in manager.template_aliases]
        finally:
            self._runtime.builder.retire(context, None)
