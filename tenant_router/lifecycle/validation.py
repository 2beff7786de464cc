"""Whether records may be published: as this process's managers see them, and beside the tenants that exist."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tenant_router import identity
from tenant_router.exceptions import RecordInvalid
from tenant_router.runtime import Runtime


class Validation:
    """Holds records against the managers of a process and against each other."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def faults(
        self, records: Mapping[str, dict[str, Any]], staying: Mapping[str, dict[str, Any]]
    ) -> Iterator[tuple[str, str]]:
        """Every fault of ``records`` with its JSON path; ``staying`` are the records of the other tenants."""
        for tenant_id, record in records.items():
            yield from self._refusals(tenant_id, record)
        yield from self._twins(records, staying)
        yield from self._shared_databases(records, staying)

    def _refusals(self, tenant_id: str, record: Mapping[str, Any]) -> list[tuple[str, str]]:
        """What the managers of this process would refuse."""
        faults = list[tuple[str, str]]()
        for orm_id, manager in self._runtime.orms.items():
            try:
                manager.prepare(tenant_id, record.get("orm_config", {}).get(orm_id, {}), None)
            except RecordInvalid as error:
                faults += error.problems
        try:
            self._runtime.caches.prepare(tenant_id, record.get("cache_config", {}), None)
        except RecordInvalid as error:
            faults += error.problems
        return [(f"{self._path(tenant_id)}.{path}", what) for path, what in faults]

    def _twins(self, records: Iterable[str], staying: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        aliases = self._runtime.templates().get("django_orm", ())
        for tenant_id in records:
            twin = identity.alias_twin(tenant_id, aliases, staying.__contains__)
            if twin is not None:
                yield self._path(tenant_id), f"would share a connection alias with tenant {twin!r}, which exists"

    def _shared_databases(
        self, records: Mapping[str, dict[str, Any]], staying: Mapping[str, dict[str, Any]]
    ) -> Iterator[tuple[str, str]]:
        for manager in self._runtime.orms.values():
            if manager.options.get("ALLOW_SHARED_DATABASES"):
                continue
            owners: dict[tuple[str, ...], str] = {}
            for tenant_id, record in [*staying.items(), *records.items()]:
                for alias, location in manager.locations(record.get("orm_config", {}).get(manager.orm_id, {})):
                    owner = owners.setdefault(location, tenant_id)
                    if owner != tenant_id and tenant_id in records:
                        path = f"{self._path(tenant_id)}.orm_config.{manager.orm_id}.{alias}"
                        yield (
                            path,
                            f"names the database of tenant {owner!r}; OPTIONS['ALLOW_SHARED_DATABASES'] allows that",
                        )

    def _path(self, tenant_id: str) -> str:
        return f"$.tenant_config[{tenant_id!r}].{self._runtime.conf.service}"
