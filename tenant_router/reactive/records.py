"""The records that are asked for one by one, as visitors come, beside what the reflector reads."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tenant_router.config_store.base import ConfigStore, StoredRecord
from tenant_router.exceptions import StoreError, StoreUnavailable, TenantNotLoaded
from tenant_router.reactive.pipeline import Pipeline
from tenant_router.reactive.reflector import Reflector
from tenant_router.reactive.unknown_ids import LookUps
from tenant_router.tenant_context import TenantContext

if TYPE_CHECKING:
    from tenant_router.reactive.last_good import LastGood

logger = logging.getLogger(__name__)


class Records:
    """Reads a tenant's record at its first use, from the store or, while it is away, from the last-good file."""

    def __init__(
        self, store: ConfigStore, pipeline: Pipeline, reflector: Reflector, last_good: LastGood | None
    ) -> None:
        self._store, self._pipeline, self._reflector, self._last_good = store, pipeline, reflector, last_good
        self.reset_after_fork()

    def reset_after_fork(self) -> None:
        """The parent's threads, and what they were asking for, do not exist in a child."""
        self._look_ups = LookUps()

    def load(self, tenant_id: str) -> TenantContext:
        """Prepare a known tenant at its first use. Raises ``TenantUnavailable``."""
        try:
            return self._pipeline.load(tenant_id, self.fetch)
        except StoreError as error:
            raise TenantNotLoaded(
                f"the record of tenant {tenant_id!r} cannot be read now: {error}", tenant_id
            ) from error

    def fetch(self, tenant_ids: Sequence[str]) -> Mapping[str, StoredRecord]:
        """Records from the store; while it is away, from the last-good file.

        A store that is known to hang is not asked: requests that wait for it would take all threads.
        """
        try:
            if self._reflector.alive and self._reflector.silent:
                raise StoreUnavailable(f"the config store is away for {self._reflector.since_contact:.0f} s")
            found = self._store.get_many(tenant_ids)
        except StoreError:
            found = self._last_good.get_many(tenant_ids) if self._last_good else {}
            if len(found) < len(tenant_ids):
                raise
        else:
            if self._last_good and self._reflector.refuses:  # the store has lost what is kept here
                found = {**self._last_good.get_many([t for t in tenant_ids if t not in found]), **found}
        return found

    def look_up(self, tenant_id: str) -> bool:
        """Ask the store for an id that is unknown here: it may have been created a moment ago."""
        if not self._reflector.ready:
            return False
        return self._look_ups.once(tenant_id, self.refresh) or tenant_id in self._pipeline.registry.index

    def refresh(self, tenant_id: str) -> bool:
        """Take over the record that the store has now; ``False`` if it has none, or cannot be asked."""
        before = self._pipeline.registry.index.get(tenant_id)
        try:
            record = self._store.get_many([tenant_id]).get(tenant_id)
        except StoreError as error:
            logger.warning("looking up a tenant: %s", error)
            return False
        if record is None:
            return False
        self._pipeline.adopt(tenant_id, before, record)
        return True
