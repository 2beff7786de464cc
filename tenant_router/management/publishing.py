"""``load_tenant_config --migrate``: a record is served when its databases were migrated, and not before."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from django.core.management.base import CommandError, OutputWrapper
from django.db import DatabaseError

from tenant_router.config_store.base import ACTIVE, PROVISIONING, Op
from tenant_router.exceptions import TenantRouterError
from tenant_router.lifecycle import Plan, Stamping, Writer
from tenant_router.lifecycle.moves import Occupied
from tenant_router.management.migrating import Migration
from tenant_router.runtime import Runtime
from tenant_router.tenant_context import TenantContext

NAMED = 20  # tenants that one line names


class Publishing:
    """Migrates exactly the records of a committed plan, and publishes or activates those and no others."""

    def __init__(self, runtime: Runtime, writer: Writer, plan: Plan, out: OutputWrapper, verbosity: int) -> None:
        self._runtime, self._writer, self._plan, self._out = runtime, writer, plan, out
        self._migration = Migration(runtime, out, plan=False, reserved=False, verbosity=verbosity)

    def run(self) -> None:
        """Migrate, then publish. Raises ``CommandError`` that names whoever is not served, and why; ``StoreError``."""
        waiting = {op.tenant_id: op for op in [*self._provisioning(), *self._plan.withheld]}
        contexts = list(self._contexts(waiting.values()))
        try:
            self._migration.run(contexts)
        finally:
            for context in contexts:
                self._runtime.builder.retire(context, None)
        failed = {tenant_id for tenant_id in waiting if not self._migration.migrated(tenant_id)}
        ops = self._without([op for tenant_id, op in waiting.items() if tenant_id not in failed], failed)
        published, changed = self._publish(ops)
        self._complain(failed, changed, waiting.keys() - failed - changed - published)

    def _provisioning(self) -> Iterator[Op]:
        """What activates the new tenants, and those that an earlier run left: from the revisions that are migrated."""
        tenant_ids = sorted({*self._plan.provisioning, *(op.tenant_id for op in self._plan.ops if _is_new(op))})
        stored = self._writer.records(tenant_ids)
        ours = {op.tenant_id: op for op in self._plan.ops}
        for tenant_id in tenant_ids:
            op, held = ours.get(tenant_id), stored.get(tenant_id)
            if op is not None:
                yield Op(tenant_id, ACTIVE, op.body, expect=self._plan.revisions[tenant_id])
            elif held is not None and held.state == PROVISIONING:
                yield Op(tenant_id, ACTIVE, held.body, expect=held.rev)

    def _contexts(self, ops: Iterable[Op]) -> Iterator[TenantContext]:
        stamping = Stamping(self._runtime, self._writer)
        for op in ops:
            try:
                if op in self._plan.withheld:
                    stamping.claim(op)
                yield self._writer.context(op)
            except (TenantRouterError, DatabaseError) as error:
                self._migration.refuse(op.tenant_id, error)

    def _without(self, ops: list[Op], staying: set[str]) -> list[Op]:
        """Those of ``ops`` that lead to no database of the tenants that stay where they are, ``staying``.

        One tenant may take the database that another one leaves: not before it was left.
        """
        places = {op.tenant_id: self._writer.places(op.tenant_id, op.body) for op in ops}
        while True:
            held = set().union(*(self._writer.places_before(self._plan, tenant_id) for tenant_id in staying))
            occupied = Occupied(self._runtime.orms, held)
            blocked = {op.tenant_id for op in ops if occupied.overlaps(places[op.tenant_id])}
            if not blocked:
                return ops
            ops, staying = [op for op in ops if op.tenant_id not in blocked], staying | blocked

    def _publish(self, ops: list[Op]) -> tuple[set[str], set[str]]:
        """Write what was migrated; the tenants of which it is, and those that somebody else has changed meanwhile."""
        written = {op.tenant_id for op in ops}

        def without(left: list[Op], stale: set[str]) -> list[Op]:
            kept = self._without(left, stale)
            written.difference_update(stale, {op.tenant_id for op in left} - {op.tenant_id for op in kept})
            return kept

        revision, changed = self._writer.commit_unchanged(Plan(ops=ops, epoch=self._plan.epoch), without)
        moved = written & self._served
        counts = {"active": len(written - moved), "moved": len(moved)}
        if revision:
            said = ", ".join(f"{count} {_tenants(count)} {what}" for what, count in counts.items() if count)
            self._out.write(f"revision {revision}: {said}")
        return written, changed

    @property
    def _served(self) -> set[str]:
        """Who is served from the database that the withheld record leads away from."""
        return {op.tenant_id for op in self._plan.withheld if op.expect} - {*self._plan.provisioning}

    def _complain(self, failed: set[str], changed: set[str], blocked: set[str]) -> None:
        unknown = {op.tenant_id for op in self._plan.withheld if not op.expect}
        said = [
            (failed - self._served - unknown, "still provisioning, because their migration failed"),
            (failed & unknown, "not loaded, because their migration failed"),
            (failed & self._served, "still on their old databases, because the migration of the new ones failed"),
            (changed, "changed by somebody else meanwhile and left as they are"),
            (blocked, "not served from their new databases, because another tenant has not left them"),
        ]
        if any(tenant_ids for tenant_ids, _ in said):
            raise CommandError("; ".join(f"{what}: {named(tenant_ids)}" for tenant_ids, what in said if tenant_ids))


def named(tenant_ids: set[str]) -> str:
    """Some of them, and how many more."""
    ordered = sorted(tenant_ids)
    more = len(ordered) - NAMED
    return ", ".join(ordered[:NAMED]) + (f" and {more} more" if more > 0 else "")


def _is_new(op: Op) -> bool:
    return op.state == PROVISIONING


def _tenants(count: int) -> str:
    return "tenant" if count == 1 else "tenants"
