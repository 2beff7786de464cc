"""Which tenants have a label: read from their records in the store, page by page."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from tenant_router import runtime
from tenant_router.config_store import codec
from tenant_router.exceptions import SerializerError

PAGE = 500  # records read at once


def with_label(
    tenant_ids: Iterable[str], label: str, unreadable: Callable[[SerializerError], None] = lambda error: None
) -> Iterator[str]:
    """Those of ``tenant_ids`` whose records have the label; ``unreadable`` is told of records that nobody can read.

    A process need not hold every tenant's record, and holds no page longer than it looks at it. Raises ``StoreError``.
    """
    serving, wanted = runtime.get(), list(tenant_ids)
    for start in range(0, len(wanted), PAGE):
        for tenant_id, stored in serving.store.get_many(wanted[start : start + PAGE]).items():
            try:
                record = codec.decode(tenant_id, stored.body, serving.serializer)
            except SerializerError as error:
                unreadable(error)
            else:
                if label in record.get("labels", ()):
                    yield tenant_id
