"""What the config stores of one name in a process share."""

from __future__ import annotations

import threading
import time
import uuid
from collections import deque
from collections.abc import Sequence

from tenant_router.config_store.base import DELETED, Event, Head, Op, StoredRecord, check_reader, next_chain, stamp
from tenant_router.exceptions import Conflict, EpochChanged

REQUEST_TTL = 3600.0  # seconds for which a request id is remembered


class Content:
    """What a store holds. Its methods are called with ``changed`` held."""

    def __init__(self, log_length: int) -> None:
        self.changed = threading.Condition()
        self.log: deque[Event] = deque(maxlen=log_length)
        self.records: dict[str, StoredRecord] = {}
        self.claims: dict[str, tuple[float, dict[str, str]]] = {}  # name: time.monotonic() of the end, by whom
        self.leases: dict[str, tuple[float, float, str]] = {}  # name: time.monotonic() when said, seconds, value
        self.notes: dict[str, dict[str, str]] = {}  # book: name: what is noted
        self._requests: dict[str, tuple[float, int]] = {}
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self.epoch, self.rev, self.chain, self.min_reader = "", 0, "", 0
        for content in (self.log, self.records, self.claims, self.leases, self.notes, self._requests):
            content.clear()

    def head(self) -> Head:
        """Where the history stands."""
        if not self.epoch:
            raise EpochChanged("the config store is empty: no configuration was ever written to it")
        check_reader(self.min_reader)
        return Head(self.epoch, self.rev, self.chain)

    def members(self, name: str) -> dict[str, str]:
        """Those of a set of claims that has not ended, and who claimed each."""
        now = time.monotonic()
        for old in [old for old, (end, _) in self.claims.items() if end <= now]:
            del self.claims[old]
        return self.claims[name][1] if name in self.claims else {}

    def living(self, now: float) -> dict[str, tuple[float, float, str]]:
        """The leases that have not ended."""
        self.leases = {name: said for name, said in self.leases.items() if now - said[0] < said[1]}
        return self.leases

    def purge(self, before: float) -> int:
        """Forget tombstones from before a time in milliseconds; returns how many."""
        old = [t for t, one in self.records.items() if one.state == DELETED and 0 < stamp(one.packed).at < before]
        purged = old[: len(self.records) - 1]
        for tenant_id in purged:
            del self.records[tenant_id]
        return len(purged)

    def commit(self, ops: Sequence[Op], request_id: str, epoch: str | None) -> int:
        """Apply all of ``ops``, or nothing."""
        self._forget_requests()
        if request_id in self._requests:
            return self._requests[request_id][1]
        if epoch is not None and epoch != self.epoch:
            raise EpochChanged(f"the config store's history is {self.epoch!r} and not {epoch!r}: nothing was written")
        self._check_expectations(ops)
        if not self.epoch:
            self.epoch = self.chain = uuid.uuid4().hex
        for op in ops:
            self._apply(op)
        self._requests[request_id] = (time.monotonic() + REQUEST_TTL, self.rev)
        self.changed.notify_all()
        return self.rev

    def _check_expectations(self, ops: Sequence[Op]) -> None:
        written: dict[str, int] = {}
        for rev, op in enumerate(ops, self.rev + 1):
            have = written.get(op.tenant_id, self._revision(op.tenant_id))
            if op.expect is not None and op.expect != have:
                raise Conflict(op.tenant_id, op.expect, have)
            written[op.tenant_id] = 0 if op.state == DELETED else rev

    def _revision(self, tenant_id: str) -> int:
        record = self.records.get(tenant_id)
        return 0 if record is None or record.state == DELETED else record.rev

    def _apply(self, op: Op) -> None:
        self.rev += 1
        self.chain = next_chain(self.chain, self.rev, op.tenant_id, op.state, op.digest)
        body = b"" if op.state == DELETED else op.body
        before = self.records.get(op.tenant_id)
        lives = before is not None and (before.state != DELETED or op.state == DELETED)
        incarnation = stamp(before.packed).incarnation if before and lives else self.rev
        tail = f":{time.time() * 1000:.0f}:{incarnation}"
        self.records[op.tenant_id] = StoredRecord(self.rev, op.state, op.digest, body, tail)
        self.log.append(Event(self.rev, op.tenant_id, op.state, op.digest, self.chain, tail=tail))

    def _forget_requests(self) -> None:
        """Drop what is too old; a dict keeps its order, so the oldest come first."""
        now = time.monotonic()
        while self._requests and next(iter(self._requests.values()))[0] <= now:
            del self._requests[next(iter(self._requests))]
