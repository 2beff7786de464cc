"""Whether records may be published: as this process's managers see them, and beside the tenants that exist."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tenant_router import identity
from tenant_router.exceptions import RecordInvalid
from tenant_router.orm_backends.base import BaseOrmManager
from tenant_router.orm_backends.places import Places, section
from tenant_router.reactive.building import Preparer
from tenant_router.runtime import Runtime
from tenant_router.secrets import revealed

Fault = tuple[str, str]
Records = Mapping[str, Mapping[str, Any]]


class Validation:
    """Holds records against the managers of a process and against each other."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def faults(self, records: Records, staying: Records) -> Iterator[Fault]:
        """Every fault of ``records`` with its JSON path; ``staying`` are the records of the other tenants."""
        for tenant_id, record in records.items():
            for path, what in self.refusals(tenant_id, record):
                yield f"{self._path(tenant_id)}.{path}", what
        yield from self.clashes(records, staying)

    def clashes(self, records: Records, staying: Records) -> Iterator[Fault]:
        """Every fault that ``records`` have because of each other, of ``staying``, or of what is reserved."""
        yield from self._twins(records, staying)
        for manager in self._runtime.orms.values():
            if not manager.options.get("ALLOW_SHARED_DATABASES"):
                yield from self._shared_databases(manager, records, staying)

    def refusals(self, tenant_id: str, record: Mapping[str, Any]) -> list[Fault]:
        """What the managers of this process would refuse."""
        faults = list[Fault]()
        parts: list[tuple[Preparer, Any]] = [(each, _of_orm(record, name)) for name, each in self._runtime.orms.items()]
        parts.append((self._runtime.caches, _object(record.get("cache_config"))))
        for manager, config in parts:
            try:
                manager.prepare(tenant_id, revealed(config), None)
            except RecordInvalid as error:
                faults += error.problems
        return faults

    def _twins(self, records: Iterable[str], staying: Mapping[str, Any]) -> Iterator[Fault]:
        aliases = self._runtime.templates().get("django_orm", ())
        for tenant_id in records:
            twin = identity.alias_twin(tenant_id, aliases, staying.__contains__)
            if twin is not None:
                yield self._path(tenant_id), f"would share a connection alias with tenant {twin!r}, which exists"

    def _shared_databases(self, manager: BaseOrmManager, records: Records, staying: Records) -> Iterator[Fault]:
        reserved = {place: f"the reserved alias {alias!r}" for alias, place in manager.reserved_locations()}
        found = [
            (tenant_id, alias, place)
            for tenant_id, record in [*staying.items(), *records.items()]
            for alias, place in manager.locations(tenant_id, section(record, manager.orm_id))
        ]
        places = Places(manager.nested_locations, ((tenant_id, place) for tenant_id, _, place in found))
        come = set[str]()
        for tenant_id, alias, place in found:
            come.add(tenant_id)
            first = next((other for other in places.others(tenant_id, place) if other in come), None)
            whose = reserved.get(place) or (first and f"tenant {first!r}")
            if whose and tenant_id in records:
                path = f"{self._path(tenant_id)}.orm_config.{manager.orm_id}.{alias}"
                yield path, f"names {manager.location_noun} of {whose}; OPTIONS['ALLOW_SHARED_DATABASES'] allows that"

    def _path(self, tenant_id: str) -> str:
        return f"$.tenant_config[{tenant_id!r}].{self._runtime.conf.service}"


def _of_orm(record: Mapping[str, Any], orm_id: str) -> dict[str, Any]:
    return _object(_object(record.get("orm_config")).get(orm_id))


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
