"""What a configuration would change: an outcome for each tenant, and the writes that make it so."""

from __future__ import annotations

from dataclasses import dataclass, field

from tenant_router.config_store.base import Op

CREATED, CHANGED, UNCHANGED, REMOVED = "created", "changed", "unchanged", "removed"


@dataclass
class Plan:
    """What a configuration would change: an outcome for each tenant, and the writes that make it so."""

    outcomes: dict[str, str] = field(default_factory=dict)
    ops: list[Op] = field(default_factory=list)
    epoch: str | None = None
    provisioning: list[str] = field(default_factory=list)  # existing tenants that were never activated

    def with_outcome(self, outcome: str) -> list[str]:
        """The ids of the tenants with that outcome, sorted."""
        return sorted(tenant_id for tenant_id, found in self.outcomes.items() if found == outcome)
