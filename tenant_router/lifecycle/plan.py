"""What a configuration would change: an outcome for each tenant, and the writes that make it so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tenant_router.config_store.base import META_ID, Op

CREATED, CHANGED, UNCHANGED, REMOVED = "created", "changed", "unchanged", "removed"


@dataclass
class Plan:
    """What a configuration would change: an outcome for each tenant, and the writes that make it so.

    ``before`` and ``after`` are the records of what changes (``mapping_metadata`` under its reserved id), as far
    as they exist and can be read. ``revisions``: what each tenant came to when the plan was committed.
    """

    outcomes: dict[str, str] = field(default_factory=dict)
    ops: list[Op] = field(default_factory=list)
    epoch: str | None = None
    provisioning: list[str] = field(default_factory=list)  # existing tenants that were never activated
    moved: list[str] = field(default_factory=list)  # tenants whose record leads to another database than before
    # the records of those that are served, and of who takes what they leave: published when all that was migrated
    withheld: list[Op] = field(default_factory=list)
    before: dict[str, Mapping[str, Any] | None] = field(default_factory=dict)
    after: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    revisions: dict[str, int] = field(default_factory=dict)

    def with_outcome(self, outcome: str) -> list[str]:
        """The ids of the tenants with that outcome, sorted."""
        return sorted(tenant_id for tenant_id, found in self.outcomes.items() if found == outcome)

    @property
    def written(self) -> str:
        """What a commit of the plan writes, for people: a revision counts ``mapping_metadata``, too."""
        tenants = sum(1 for op in self.ops if op.tenant_id != META_ID)
        said = [f"{tenants} tenant{'s' * (tenants != 1)}"] if tenants else []
        if len(self.ops) > tenants:
            said.append("the mapping_metadata")
        return " and ".join(said)


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """The path of each key that differs."""
    for key in sorted({*before, *after}):
        old, new = before.get(key), after.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from ((key, *below) for below in differences(old, new))
        elif old != new:
            yield (key,)
