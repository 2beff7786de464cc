"""From one stored record to the context that code is bound to: decode, check, prepare."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from tenant_router.config_store import codec
from tenant_router.config_store.base import StoredRecord, digest_of
from tenant_router.config_store.serializers.base import Serializer
from tenant_router.exceptions import RecordInvalid, SerializerError
from tenant_router.reactive.claims import Claims
from tenant_router.secrets import revealed, without_frames
from tenant_router.tenant_context import TenantContext

Check = Callable[[Mapping[str, Any]], Sequence[tuple[str, str]]]


class Preparer(Protocol):
    """What the pipeline asks of the ORM managers and of the cache manager."""

    def prepare(self, tenant_id: str, config: Any, previous: Any) -> Any:
        """Build what contexts carry. Raises ``RecordInvalid``."""

    def retire(self, previous: Any, current: Any) -> None:
        """Let go of what ``previous`` holds and ``current`` does not."""


class Stamping(Preparer, Protocol):
    """What it asks of the ORM managers besides."""

    def expect_stamp(self, prepared: Any, incarnation: str) -> None:
        """Have new connections find ``incarnation`` in the databases."""


class Builder:
    """Asks all managers for their part of a tenant's context; ``check`` finds what no manager need look at."""

    def __init__(self, orms: Mapping[str, Stamping], caches: Preparer, serializer: Serializer, check: Check) -> None:
        self._orms, self._caches, self._serializer, self._check = orms, caches, serializer, check
        self.claims = Claims(orms, lambda tenant_id, body: codec.decode(tenant_id, body, serializer))

    def build(self, tenant_id: str, record: StoredRecord, previous: TenantContext | None) -> TenantContext:
        """Decode, check and prepare a record.

        Raises ``RecordInvalid`` or ``SerializerError`` that says what is wrong with it, without the frames below this
        one: managers read the record as drivers do, and the error reports of a project print variables. And whatever
        else a manager (anybody can write one) raises that cannot prepare it, be it now or ever.
        """
        try:
            return self._build(tenant_id, record, previous)
        except (RecordInvalid, SerializerError) as error:
            raise without_frames(error)

    def _build(self, tenant_id: str, record: StoredRecord, previous: TenantContext | None) -> TenantContext:
        if digest_of(record.body) != record.digest:
            raise RecordInvalid([("", "the stored record is not the one that the index announces")])
        config = codec.decode(tenant_id, record.body, self._serializer)
        faults = self._check(config)
        if faults:
            raise RecordInvalid(faults)
        parts = self._parts(tenant_id, config, previous)
        for orm_id, manager in self._orms.items():
            manager.expect_stamp(parts[orm_id], codec.incarnation_of(record.body))
        return TenantContext(tenant_id, record.rev, parts)

    def retire(self, previous: TenantContext, current: TenantContext | None) -> None:
        """Have the managers let go of what ``previous`` holds and ``current`` does not."""
        managers = {**self._orms, "cache": self._caches}
        for name, part in previous.parts.items():
            managers[name].retire(part, current and current.parts[name])

    def _parts(self, tenant_id: str, config: Mapping[str, Any], previous: TenantContext | None) -> dict[str, Any]:
        parts, orm_config = {}, config.get("orm_config", {})
        for orm_id, manager in self._orms.items():
            own = revealed(orm_config.get(orm_id, {}))
            parts[orm_id] = manager.prepare(tenant_id, own, previous and previous.parts[orm_id])
        own = revealed(config.get("cache_config", {}))
        parts["cache"] = self._caches.prepare(tenant_id, own, previous and previous.parts["cache"])
        return parts
