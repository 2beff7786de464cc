"""What this release would refuse of what a store holds: to be looked at before it is upgraded."""

from __future__ import annotations

from collections.abc import Iterator

from tenant_router.config_store import codec
from tenant_router.config_store.base import DELETED, META_ID, packed_state
from tenant_router.exceptions import SerializerError, printable
from tenant_router.identity import RULE, no_tenant_ids
from tenant_router.lifecycle.validation import Fault, Validation
from tenant_router.runtime import Runtime

PAGE = 1_000  # records read at once


def refused_records(runtime: Runtime) -> Iterator[tuple[str, list[Fault]]]:
    """Each tenant of the store whose record would be refused here, with every ``(path, what is wrong)``.

    Tenants that share a database are told by their paths at the end, under the id ``""``. Raises ``StoreError``.
    """
    validation, held = Validation(runtime), {}
    live = [t for t, entry in runtime.store.index().items() if packed_state(entry) != DELETED and t != META_ID]
    bad = set(no_tenant_ids(live))
    for name in sorted(bad):
        yield name, [("", f"is no tenant id ({RULE}) and is left out")]
    names = sorted(set(live) - bad)
    for start in range(0, len(names), PAGE):
        for tenant_id, stored in runtime.store.get_many(names[start : start + PAGE]).items():
            try:
                held[tenant_id] = record = codec.decode(tenant_id, stored.body, runtime.serializer)
            except SerializerError as error:
                yield tenant_id, [("", str(error))]
                continue
            faults = runtime.check_record(record) or validation.refusals(tenant_id, record)
            if faults:
                yield tenant_id, [(printable(path), printable(what)) for path, what in faults]
    shared = list(validation.clashes(held, {}))
    if shared:
        yield "", shared
