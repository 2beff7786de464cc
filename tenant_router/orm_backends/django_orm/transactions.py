"""A transaction begins and ends under one tenant: what sees to it at each change of tenant."""

from __future__ import annotations

from typing import Any

from tenant_router import context as _context
from tenant_router.exceptions import TransactionOpen
from tenant_router.orm_backends.django_orm.databases import Database
from tenant_router.orm_backends.django_orm.open_connections import ThreadConnections
from tenant_router.tenant_context import DeniedContext, TenantContext
from tenant_router.unit_of_work import Unit


def refuse_crossing(
    mine: ThreadConnections, unit: Unit | None, old: TenantContext | None, new: TenantContext | None, leaving: bool
) -> None:
    """Keep a transaction on a connection of this thread within its tenant.

    ``Atomic.__exit__`` looks the connection up again: under another tenant, or none, it would
    leave the transaction open on this thread. Entering another tenant is refused; when a tenant
    is left, its transaction is rolled back and the connection closed before this raises.
    """
    if old is None and not leaving:
        # A test run's own transactions are begun where nothing is bound, too.
        candidates = [*mine.wrappers.values()] if _context.testing else mine.by_alias
        mine.outer = {wrapper.database: _depth(wrapper) for wrapper in candidates if wrapper.in_atomic_block}
        return
    if unit is None:
        return
    for resource in [*unit.uses]:  # a copy: other threads of this unit may begin to use something
        if resource.in_atomic_block:
            _keep_within(mine, unit, old, new, leaving)
            return


def _keep_within(
    mine: ThreadConnections, unit: Unit, old: TenantContext | None, new: TenantContext | None, leaving: bool
) -> None:
    if old is None or (new is not None and new.id == old.id):
        return
    opened = [wrapper for wrapper in mine.in_use(unit) if wrapper.in_atomic_block]
    crossed = _crossed(mine, opened, old)
    for wrapper in crossed if leaving else ():
        mine.wrappers.pop(wrapper.database, None)
        wrapper.abandon()
    if crossed:
        then = f"tenant {new.id!r} is bound" if new and not leaving else f"tenant {old.id!r} is left"
        raise TransactionOpen(f"a transaction is open on {crossed[0].alias!r}: end it before {then}")


def _crossed(mine: ThreadConnections, opened: list[Any], context: TenantContext) -> list[Any]:
    """The connections to databases of ``context`` on which a transaction was opened since it was bound."""
    if isinstance(context, DeniedContext):
        return []
    databases: set[Database] = set(context.parts["django_orm"].values())
    return [
        wrapper
        for wrapper in opened
        if wrapper.database in databases and _depth(wrapper) > mine.outer.get(wrapper.database, 0)
    ]


def _depth(wrapper: Any) -> int:
    # The transaction around a whole test (django/test/testcases.py marks its blocks so) is not the application's.
    return sum(not getattr(block, "_from_testcase", False) for block in wrapper.atomic_blocks)
