"""Whether records may be published: as this process's managers see them, and beside the tenants that exist."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
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
        kinds: dict[str, list[BaseOrmManager]] = {}
        for manager in self._runtime.orms.values():
            kinds.setdefault(manager.location_kind or manager.orm_id, []).append(manager)
        for managers in kinds.values():
            if not all(manager.options.get("ALLOW_SHARED_DATABASES") for manager in managers):
                yield from self._shared_databases(managers, records, staying)

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

    def _shared_databases(
        self, managers: Sequence[BaseOrmManager], records: Records, staying: Records
    ) -> Iterator[Fault]:
        """Of managers whose databases can be the same; both sides must allow that one is shared."""
        reserved = {
            place: (f"the reserved alias {alias!r}", _allows(manager))
            for manager in managers
            for alias, place in manager.reserved_locations()
        }
        found = [
            (tenant_id, manager, alias, place)
            for tenant_id, record in [*staying.items(), *records.items()]
            for manager in managers
            for alias, place in manager.locations(tenant_id, section(record, manager.orm_id))
        ]
        places = {  # with which those are compared that allow it, or do not
            allowing: Places(
                managers[0].nested_locations, ((t, p) for t, m, _, p in found if not (allowing and _allows(m)))
            )
            for allowing in (True, False)
        }
        come, told = set[str](), set[str]()
        for tenant_id, manager, alias, place in found:
            come.add(tenant_id)
            allowing = _allows(manager)
            first = next((other for other in places[allowing].others(tenant_id, place) if other in come), None)
            central, lenient = reserved.get(place, ("", True))
            whose = central if central and not (lenient and allowing) else first and f"tenant {first!r}"
            path = f"{self._path(tenant_id)}.orm_config.{manager.orm_id}.{alias}"
            if whose and tenant_id in records and path not in told:
                told.add(path)  # once, however many hosts it has
                yield path, f"names {manager.location_noun} of {whose}; OPTIONS['ALLOW_SHARED_DATABASES'] allows that"

    def _path(self, tenant_id: str) -> str:
        return f"$.tenant_config[{tenant_id!r}].{self._runtime.conf.service}"


def _allows(manager: BaseOrmManager) -> bool:
    return bool(manager.options.get("ALLOW_SHARED_DATABASES"))


def _of_orm(record: Mapping[str, Any], orm_id: str) -> dict[str, Any]:
    return _object(_object(record.get("orm_config")).get(orm_id))


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
