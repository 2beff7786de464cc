"""How a unit of work uses a client: a resource of the unit."""

from __future__ import annotations

from typing import Protocol

from tenant_router import unit_of_work as units
from tenant_router.janitor import Janitor
from tenant_router.orm_backends.es_orm.shared_client import SharedClient
from tenant_router.unit_of_work import Unit


class Counting(Protocol):
    """Who counts the uses of clients: a ``ClientPool``."""

    janitor: Janitor

    def count(self, client: SharedClient, use: Use, counted: bool) -> None:
        """Whether a unit uses ``client``. Idempotent."""


class Use:
    """That a unit of work has used a client as a tenant."""

    in_atomic_block = False

    def __init__(self, tenant_id: str, client: SharedClient, pool: Counting) -> None:
        self.tenant_id, self.counted = tenant_id, False
        self._client, self._pool = client, pool

    def left_by(self, unit: Unit) -> None:
        """``unit`` uses it no longer."""
        self._pool.count(self._client, self, False)

    def may_rest(self) -> bool:
        """A request that runs counts by itself."""
        return True

    def is_abandoned(self) -> None:
        """The unit that used it became garbage."""
        self._pool.janitor.do_if_running(units.release_abandoned)
