"""A transaction begins and ends under one tenant: what sees to it at each change of tenant."""

from __future__ import annotations

from typing import Any

from tenant_router import context as _context
from tenant_router.context import TenantContext
from tenant_router.exceptions import TransactionOpen
from tenant_router.orm_backends.django_orm.databases import Database
from tenant_router.orm_backends.django_orm.slots import Slot


def refuse_crossing(slot: Slot, old: TenantContext | None, new: TenantContext | None, leaving: bool) -> None:
    """Keep a transaction on a connection of ``slot`` within its tenant.

    ``Atomic.__exit__`` looks the connection up again: under another tenant, or none, it would
    leave the transaction open on this thread. Entering another tenant is refused; when a tenant
    is left, its transaction is rolled back and the connection closed before this raises.
    """
    if slot.outer and old is None and not leaving:
        slot.outer = {}
    for wrapper in [*slot.wrappers.values()]:  # Slot.in_transactions, without the call
        if wrapper.in_atomic_block:
            _keep_within(slot, old, new, leaving)
            break
    if leaving and new is None and slot.in_unit and not slot.in_request:
        slot.end()


def _keep_within(slot: Slot, old: TenantContext | None, new: TenantContext | None, leaving: bool) -> None:
    opened = slot.in_transactions()
    if old is None and not leaving:
        slot.outer = {wrapper.database: _depth(wrapper) for wrapper in opened}
    elif old is not None and (new is None or new.id != old.id):
        crossed = _crossed(slot, opened, old)
        for database in crossed if leaving else ():
            slot.wrappers.pop(database).abandon()
        if crossed:
            then = f"tenant {new.id!r} is bound" if new and not leaving else f"tenant {old.id!r} is left"
            raise TransactionOpen(f"a transaction is open on {crossed[0].alias!r}: end it before {then}")


def _crossed(slot: Slot, opened: list[Any], context: TenantContext) -> list[Database]:
    """The databases of ``context`` on which a transaction was opened since it was bound."""
    if isinstance(context, _context.DeniedContext):
        return []
    databases = set(context.parts["django_orm"].values())
    return [
        wrapper.database
        for wrapper in opened
        if wrapper.database in databases and _depth(wrapper) > slot.outer.get(wrapper.database, 0)
    ]


def _depth(wrapper: Any) -> int:
    # The transaction around a whole test (django/test/testcases.py marks its blocks so) is not the application's.
    return sum(not getattr(block, "_from_testcase", False) for block in wrapper.atomic_blocks)
