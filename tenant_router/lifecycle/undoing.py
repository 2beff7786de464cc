"""Removing what was made for a tenant that never became active."""

from __future__ import annotations

from tenant_router import runtime
from tenant_router.config_store.base import DELETED, META_ID, PROVISIONING, Op, StoredRecord
from tenant_router.exceptions import ProvisioningError
from tenant_router.identity import alias_for
from tenant_router.lifecycle import begun as steps
from tenant_router.lifecycle import moves
from tenant_router.lifecycle.begun import Begun
from tenant_router.lifecycle.reference import provisioners
from tenant_router.lifecycle.stamping import Consent
from tenant_router.lifecycle.work import Work, is_of


class Undoing(Work):
    """Of one tenant."""

    def undo(self, consent: Consent) -> list[str]:
        """Remove what was made, and the record; returns what that was. Asks for ``consent`` before."""
        with self._locks.holding(f"provision:{self.tenant_id}"):
            begun, held = self._to_undo()
            made = [name for orm in begun.names.values() for names in orm.values() for name in names.values()]
            consent(f"what was made for {self.tenant_id} is removed, if it is there: {', '.join(dict.fromkeys(made))}")
            self._notes.write(self.tenant_id, begun._replace(step=steps.UNDO))
            with self._explained(steps.UNDO):
                if held is not None:  # first, so that nobody activates it while its databases vanish
                    self._commit(Op(self.tenant_id, DELETED, expect=held.rev))
                removed = self._remove(begun)
            self._notes.write(self.tenant_id, None)
        return removed

    def _to_undo(self) -> tuple[Begun, StoredRecord | None]:
        begun, held = self._notes.read(self.tenant_id), self._held()
        if begun is None:
            raise ProvisioningError(f"{self.tenant_id} is not being created, so there is nothing to undo")
        own = held if held and is_of(held, begun) else None
        if (own or begun.step == steps.ACTIVATE) and not (own and own.state == PROVISIONING):
            self._notes.write(self.tenant_id, None)
            raise ProvisioningError(
                f"{self.tenant_id} was created and is served: nothing was removed (see 'tenant delete')"
            )
        self._check_unused(begun, own)
        return begun, own

    def _check_unused(self, begun: Begun, own: StoredRecord | None) -> None:
        """Refuse to remove a database that another record leads to by now."""
        index = self._writer.index()
        others = [t for t in index if t != META_ID and not (own and t == self.tenant_id)]
        occupied, orms = set[tuple[str, ...]](), self._runtime.orms
        for tenant_id, stored in self._writer.records(others).items():
            occupied |= moves.places(orms, tenant_id, self._writer.decoded(tenant_id, stored))
        made = {orm: {a: {"NAME": names["database"]} for a, names in of.items()} for orm, of in begun.names.items()}
        ours = moves.places(orms, self.tenant_id, {"orm_config": made})
        if moves.Occupied(self._runtime.orms, occupied).overlaps(ours):
            raise ProvisioningError(
                f"a record leads to a database that was made for {self.tenant_id}: nothing was removed"
            )

    def _remove(self, begun: Begun) -> list[str]:
        removed = list[str]()
        for manager, provisioner in provisioners(self._runtime):
            for alias, names in begun.names.get(manager.orm_id, {}).items():
                removed += provisioner.remove(self._stamp(begun, alias), names)
                self._migrator.note({alias_for(self.tenant_id, alias): None})
        return removed


def undo_provisioning(tenant_id: str, consent: Consent) -> list[str]:
    """Remove what was made for a tenant that never became active; returns what that was.

    ``consent`` is asked before, and raises if it must not be. Raises as ``provision``.
    """
    return Undoing(runtime.get(), tenant_id).undo(consent)
