"""Puts tenants into a config store. Apart from the harness: the measured sites import it as well."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from tenant_router.config_store import codec
from tenant_router.config_store.base import ACTIVE, MAX_OPS, ConfigStore, Op
from tenant_router.config_store.serializers.base import Serializer


def register(store: ConfigStore, serializer: Serializer, records: Mapping[str, Mapping[str, Any]]) -> None:
    """Commit one record for each tenant id."""
    ops = [Op(tenant_id, ACTIVE, codec.encode(tenant_id, record, serializer)) for tenant_id, record in records.items()]
    for start in range(0, len(ops), MAX_OPS):
        store.commit(ops[start : start + MAX_OPS], request_id=uuid.uuid4().hex)


def register_here(records: Mapping[str, Mapping[str, Any]]) -> None:
    """The same with the store of this process's runtime."""
    from tenant_router import runtime

    register(runtime.get().store, runtime.get().serializer, records)


def on_databases(names: list[str], count: int = 0) -> dict[str, dict[str, Any]]:
    """Records of ``t0.test`` and so on, for ``names`` and then, up to ``count``, for databases that there are not."""
    names = [*names, *(f"tenant_{number}" for number in range(len(names), count))]
    return {
        f"t{number}.test": {"orm_config": {"django_orm": {"default": {"NAME": name}}}}
        for number, name in enumerate(names)
    }
