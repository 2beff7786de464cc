"""A store that lost tenants deletes nobody: it alarms and waits, for them to come back or for an operator's word.

A deletion leaves a tombstone, so a tenant that is simply not there any more was lost: by a restore, a failover, an
eviction, a hand. A single one may go (the latest commit of a failover); more of them are an operator's matter.
"""

from __future__ import annotations

from collections.abc import Mapping

from tenant_router.config_store.base import Head
from tenant_router.exceptions import StoreError
from tenant_router.reactive.budget import Reads
from tenant_router.reactive.pipeline import Pipeline

ACCEPTED = "accepted"  # the claims, "<epoch>:<revision>", of operators who looked at a shrunken store
SHRINK_FLOOR = 1  # so many tenants may vanish whatever share of all they are, unless they are all


class ShrinkRefused(StoreError):
    """The store lost many tenants at once without deleting them; nothing was taken over."""


class ShrinkGuard:
    """Compares what a store has with what this process holds. ``share``: see the setting ``MAX_SHRINK``."""

    def __init__(self, pipeline: Pipeline, share: float) -> None:
        self._pipeline, self._share = pipeline, share
        self.refusing = False  # at the latest look at the whole index
        self.refusals = 0  # since the process began
        self._looked_at: Head | None = None

    def seen(self, head: Head) -> bool:
        """Whether the store was refused at this very head already: its index need not be read once more."""
        return self.refusing and head == self._looked_at

    def check(self, store: Reads, head: Head, fresh: Mapping[str, str] | None) -> None:
        """Look at the index ``fresh``, or at none if this head was ``seen``. Raises ``ShrinkRefused``."""
        held = len(self._pipeline.registry.get_known_ids())
        lost = held if fresh is None else self._pipeline.vanishing(fresh)
        shrunk = self.seen(head) if fresh is None else self._is_too_much(lost, held, bool(fresh))
        if not shrunk or _accepted(store, head):
            self.refusing = False
            return
        what = "many tenants" if fresh is None else f"{lost} of {held} tenants"
        raise self._refusal(
            head,
            f"{what} are gone from the store without having been deleted; they are kept until "
            f"it has them again or an operator says: manage.py tenant_store accept --epoch {head.epoch}",
        )

    def check_empty(self) -> None:
        """The store holds nothing at all. Raises ``ShrinkRefused`` if tenants are held here."""
        held = len(self._pipeline.registry.get_known_ids())
        if held:
            raise self._refusal(None, f"the config store is empty; the {held} tenants that it had are kept")

    def _is_too_much(self, lost: int, held: int, some_left: bool) -> bool:
        if not lost or (self._share >= 1 and some_left):
            return False
        return lost == held or lost > max(SHRINK_FLOOR, held * self._share)

    def _refusal(self, head: Head | None, what: str) -> ShrinkRefused:
        known = self._looked_at and self._looked_at.epoch
        self.refusals += not self.refusing or known != (head and head.epoch)
        self.refusing, self._looked_at = True, head
        return ShrinkRefused(what)


def _accepted(store: Reads, head: Head) -> bool:
    """Whether an operator has looked at this history, at this revision or an earlier one, and takes it."""
    said = store.claimed(ACCEPTED) if store.keeps_claims else ()
    looked_at = (word.rpartition(":") for word in said)
    return any(epoch == head.epoch and rev.isdecimal() and int(rev) <= head.rev for epoch, _, rev in looked_at)
