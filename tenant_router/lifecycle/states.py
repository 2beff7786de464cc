"""What operators do with a tenant that exists: from which states each of it leads, and where to."""

from __future__ import annotations

from typing import NamedTuple

from tenant_router.config_store.base import ACTIVE, DRAINING, STATE_NAMES, SUSPENDED
from tenant_router.exceptions import TenantRouterError


class StateRefused(TenantRouterError):
    """A tenant cannot be brought from its state into the one that was asked for."""


class Transition(NamedTuple):
    """``sources``: the states from which it leads, as letters. ``target``: where to."""

    sources: str
    target: str

    def check(self, tenant_id: str, state: str) -> bool:
        """Whether there is anything to do for a tenant in ``state``. Raises ``StateRefused``."""
        if state == self.target:
            return False
        if state not in self.sources:
            raise StateRefused(
                f"tenant {tenant_id!r} is {STATE_NAMES.get(state, state)} and cannot become "
                f"{STATE_NAMES[self.target]}: 'load_tenant_config --migrate', or 'tenant create', activates it"
            )
        return True


# A provisioning tenant is in none of them: it becomes active when its databases were migrated.
TRANSITIONS = {
    "suspend": Transition(ACTIVE + DRAINING, SUSPENDED),
    "resume": Transition(SUSPENDED + DRAINING, ACTIVE),
    "drain": Transition(ACTIVE + SUSPENDED, DRAINING),
}
