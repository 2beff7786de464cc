"""What a writer has validated its records against must still be so when they are published.

Two writers who load one database for two tenants at once would each find it free. So every commit that
publishes a record also writes the reserved record ``@meta``, as it is, at the revision that it had when the
records were validated: of two such commits the store refuses the second one, whatever tenants they are
about. That one looks at what was published meanwhile, and is refused if it clashes, or goes on if it does not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tenant_router.config_store import codec
from tenant_router.config_store.base import ACTIVE, DELETED, MAX_OPS, META_ID, Head, Op, packed_state, unpack
from tenant_router.exceptions import Conflict, RecordInvalid, SerializerError
from tenant_router.lifecycle.validation import Validation
from tenant_router.runtime import Runtime

CHUNK = MAX_OPS - 1  # operations of one commit besides the one on ``@meta``
ATTEMPTS = 50  # at a commit; each fails only because another writer's has succeeded
PAGE = 1_000  # records read at once


class Fence:
    """The store, for a writer: its ``commit`` fails when the records clash with what others published meanwhile."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime, self._store = runtime, runtime.store
        self._seen: Mapping[str, str] = {}
        self._records: Mapping[str, Mapping[str, Any]] | None = None

    def validated(self, records: Mapping[str, Mapping[str, Any]], index: Mapping[str, str]) -> None:
        """``records`` were found good beside the other tenants of ``index``."""
        self._records, self._seen = records, index

    def head(self) -> Head:
        """See ``ConfigStore``."""
        return self._store.head()

    def index(self) -> dict[str, str]:
        """As ``ConfigStore.index``, which reads page by page, and not with an ``@meta`` that is newer than a page.

        Raises ``Conflict`` if others publish all the time.
        """
        rev = 0
        for _ in range(ATTEMPTS):
            before, index = self._store.head().rev, self._store.index()
            rev = _said(index.get(META_ID))[0]
            if rev <= before:
                return index
        raise Conflict(META_ID, before, rev)

    def commit(self, ops: Sequence[Op], *, request_id: str, epoch: str | None = None) -> int:
        """As ``ConfigStore.commit``, for at most ``CHUNK`` operations. Raises ``RecordInvalid`` for a clash, too."""
        if self._records is None or not any(map(self._publishes, ops)):
            return self._store.commit(ops, request_id=request_id, epoch=epoch)
        for _ in range(ATTEMPTS):
            fenced = self._fenced(ops)
            try:
                last = self._store.commit(fenced, request_id=request_id, epoch=epoch)
            except Conflict as conflict:
                if conflict.tenant_id != META_ID:
                    raise
                self._look_again(ops, conflict)
            else:
                self._passed(fenced, last)
                return last
        raise Conflict(META_ID, self._meta[0], 0)

    # --- inside ---

    @property
    def _meta(self) -> tuple[int, str]:
        """Revision and digest of ``@meta``; 0 where there is none."""
        entry = self._seen.get(META_ID)
        rev, state, digest = _said(entry)
        return (0, "") if state == DELETED else (rev, digest)

    def _publishes(self, op: Op) -> bool:
        entry = self._seen.get(op.tenant_id)
        return op.tenant_id != META_ID and op.state != DELETED and _said(entry)[2] != op.digest

    def _fenced(self, ops: Sequence[Op]) -> list[Op]:
        """``ops`` with one on ``@meta`` that insists on its revision: the first, so that theirs are the last ones."""
        rev, _ = self._meta
        if any(op.tenant_id == META_ID for op in ops):
            return [op._replace(expect=rev) if op.tenant_id == META_ID else op for op in ops]
        stored = self._store.get_many([META_ID]).get(META_ID)
        body = stored.body if stored else codec.encode(META_ID, {"mapping_metadata": {}}, self._runtime.serializer)
        return [Op(META_ID, ACTIVE, body, expect=rev), *ops]

    def _passed(self, fenced: Sequence[Op], last: int) -> None:
        """The next chunk of the same records stands on this one."""
        first = last - len(fenced) + 1
        written = {op.tenant_id: f"{first + number}:{op.state}:{op.digest}" for number, op in enumerate(fenced)}
        self._seen = {**self._seen, **written}

    def _look_again(self, ops: Sequence[Op], conflict: Conflict) -> None:
        """Validate beside what was published since. Raises ``RecordInvalid``; ``conflict`` if ``@meta`` differs."""
        seen, index, (_, digest) = self._seen, self.index(), self._meta
        self._check_expected(ops, index)
        live = [t for t, entry in index.items() if packed_state(entry) != DELETED]
        written = {META_ID, *(op.tenant_id for op in ops)}
        news = [t for t in live if t not in written and _said(index[t]) != _said(seen.get(t))]
        # what somebody else has made of one of these tenants counts, and not what it was to become here
        records = {tenant_id: record for tenant_id, record in (self._records or {}).items() if tenant_id not in news}
        self._seen, self._records = index, records
        ours = [op for op in ops if op.tenant_id == META_ID]
        if self._meta[1] != digest and ours and self._decoded([META_ID]) != self._read({META_ID: ours[0].body}):
            raise conflict
        staying = self._decoded(news)
        faults = list(Validation(self._runtime).clashes(records, staying))
        if faults:
            raise RecordInvalid(faults)

    def _check_expected(self, ops: Sequence[Op], index: Mapping[str, str]) -> None:
        """Raise ``Conflict`` for a tenant that somebody else has changed: the store would, after ``@meta`` alone."""
        for op in ops:
            rev, state, _ = _said(index.get(op.tenant_id))
            present = 0 if state == DELETED else rev
            if op.tenant_id != META_ID and op.expect is not None and op.expect != present:
                raise Conflict(op.tenant_id, op.expect, present)

    def _decoded(self, tenant_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        found = dict[str, dict[str, Any]]()
        for start in range(0, len(tenant_ids), PAGE):
            stored = self._store.get_many(tenant_ids[start : start + PAGE])
            found |= self._read({tenant_id: record.body for tenant_id, record in stored.items()})
        return found

    def _read(self, bodies: Mapping[str, bytes]) -> dict[str, dict[str, Any]]:
        found = dict[str, dict[str, Any]]()
        for tenant_id, body in bodies.items():
            try:
                found[tenant_id] = codec.decode(tenant_id, body, self._runtime.serializer)
            except SerializerError:
                found[tenant_id] = {}  # which leads nowhere
        return found


def _said(entry: str | None) -> tuple[int, str, str]:
    """Revision, state and digest of an entry of the index: those written here have no more than that."""
    return unpack(entry) if entry else (0, DELETED, "")
