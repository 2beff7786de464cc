"""What is known of tenants that are being created: a note in the config store for each, until it is active."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from tenant_router.config_store.base import ConfigStore
from tenant_router.exceptions import ProvisioningError

BOOK = "provisioning"

# In the order in which they are done; a note names the one that has begun. UNDO may follow any but ACTIVATE.
RECORD, CREATE, STAMP, MIGRATE, SEED, ACTIVATE, UNDO = (
    "record",
    "create",
    "stamp",
    "migrate",
    "seed",
    "activate",
    "undo",
)


class Begun(NamedTuple):
    """One tenant's. ``names``: what is made, by ORM, template alias and kind; nothing of it is secret."""

    incarnation: str
    step: str
    names: Mapping[str, Mapping[str, Mapping[str, str]]]


class Notes:
    """Reads and writes them. Raises ``StoreError``, and ``ProvisioningError`` where the store keeps no notes."""

    def __init__(self, store: ConfigStore) -> None:
        if not (store.keeps_notes and store.keeps_claims):
            raise ProvisioningError(
                f"{type(store).__name__} keeps no notes or no claims, without which a run that is killed cannot go on: "
                "tenants are not created with this config store"
            )
        self._store = store

    def read(self, tenant_id: str) -> Begun | None:
        """The note of a tenant; ``None`` where there is none."""
        found = self._store.notes(BOOK, [tenant_id]).get(tenant_id)
        if found is None:
            return None
        told: dict[str, Any] = json.loads(found)
        return Begun(told["incarnation"], told["step"], told["names"])

    def write(self, tenant_id: str, begun: Begun | None) -> None:
        """Replace it, or remove it."""
        self._store.write_notes(BOOK, {tenant_id: json.dumps(begun._asdict()) if begun else None})
