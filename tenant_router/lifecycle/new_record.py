"""The record of a tenant that is to be created: what is given, and what can be derived."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tenant_router.exceptions import ProvisioningError, RecordInvalid
from tenant_router.lifecycle.reference import provisioners
from tenant_router.orm_backends.places import section
from tenant_router.runtime import Runtime
from tenant_router.secrets import revealed


def completed(runtime: Runtime, tenant_id: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """A record with what its managers can add; raises ``ProvisioningError`` and ``RecordInvalid``."""
    orm_config = given.get("orm_config", {})
    if isinstance(orm_config, Mapping):
        orm_config = {**orm_config, **dict(_sections(runtime, tenant_id, orm_config))}
    record = {**given, "orm_config": orm_config}
    if faults := runtime.check_record(record):
        raise RecordInvalid(faults)
    return record


def _sections(runtime: Runtime, tenant_id: str, orm_config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """What stands for each ORM where a record says ``orm_config``; what is no section is left to be refused."""
    makers = {manager.orm_id: provisioner for manager, provisioner in provisioners(runtime)}
    for orm_id, manager in runtime.orms.items():
        own = orm_config.get(orm_id, {})
        if orm_id in makers and _is_section(own):
            yield orm_id, makers[orm_id].complete(runtime.conf.service, tenant_id, own)
        elif orm_id not in makers and (missing := [each for each in manager.template_aliases if each not in own]):
            raise ProvisioningError(f"what a record says of {orm_id}.{missing[0]} must be given, by --record")


def names(runtime: Runtime, tenant_id: str, record: Mapping[str, Any]) -> dict[str, dict[str, Mapping[str, str]]]:
    """What is made for a record, by ORM, template alias and kind."""
    return {
        manager.orm_id: provisioner.names(tenant_id, revealed(section(record, manager.orm_id)))
        for manager, provisioner in provisioners(runtime)
    }


def _is_section(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(config, Mapping) for config in value.values())
