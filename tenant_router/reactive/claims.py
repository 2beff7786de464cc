"""What tenants have here that no other may have: of two who overlap in the store, the one who comes second is refused.

The writers see to it that nobody overlaps; this is for what came into the store past them. It is done where names
within one server keep tenants apart (``nested_locations``), and among the records that this process has read: all of
them up to ``EAGER_MAX`` tenants, beyond that those that are used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tenant_router.exceptions import SerializerError, TenantRouterError
from tenant_router.orm_backends.base import BaseOrmManager
from tenant_router.orm_backends.places import Place, Places, section

Decode = Callable[[str, bytes], Mapping[str, Any]]


class Overlaps(TenantRouterError):
    """A record leads to what another tenant has here. It can be taken when that one has left."""


class Claims:
    """The places of the tenants whose records are prepared or held. Guarded by the publisher's lock."""

    def __init__(self, orms: Mapping[str, Any], decode: Decode) -> None:
        self._decode = decode
        self._orms: dict[str, BaseOrmManager] = {
            orm_id: manager
            for orm_id, manager in orms.items()
            if getattr(manager, "nested_locations", False) and not manager.options.get("ALLOW_SHARED_DATABASES")
        }
        self._places = {orm_id: Places(nested=True) for orm_id in self._orms}

    def __bool__(self) -> bool:
        return bool(self._orms)

    def take(self, tenant_id: str, body: bytes) -> None:
        """The tenant has what its record says and not what it had; which stays where ``Overlaps`` is raised."""
        if not self._orms:
            return
        wanted = list(self._wanted(tenant_id, body))
        for orm_id, alias, place in wanted:
            other = next(self._places[orm_id].others(tenant_id, place), None)
            if other is not None:
                noun = self._orms[orm_id].location_noun
                raise Overlaps(f"orm_config.{orm_id}.{alias}: names {noun} of tenant {other!r}, which is served here")
        self.release(tenant_id)
        for orm_id, _, place in wanted:
            self._places[orm_id].add(tenant_id, place)

    def release(self, tenant_id: str) -> None:
        """The tenant has nothing any more."""
        for places in self._places.values():
            places.discard(tenant_id)

    def _wanted(self, tenant_id: str, body: bytes) -> Iterator[tuple[str, str, Place]]:
        try:
            record = self._decode(tenant_id, body)
        except SerializerError:  # it is refused when it is looked at
            return
        for orm_id, manager in self._orms.items():
            for alias, place in manager.locations(tenant_id, section(record, orm_id)):
                yield orm_id, alias, place
