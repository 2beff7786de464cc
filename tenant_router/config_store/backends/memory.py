"""A config store inside one process: for tests, and for programs that need no other."""

from __future__ import annotations

import heapq
import threading
import time
import uuid
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, ClassVar

from tenant_router.config_store.base import (
    DELETED,
    ConfigStore,
    Event,
    Head,
    Lease,
    Op,
    StoredRecord,
    check_ops,
    check_reader,
    next_chain,
    stamp,
)
from tenant_router.exceptions import Conflict, EpochChanged, StoreUnavailable

LOG_LENGTH = 20_000  # events
REQUEST_TTL = 3600.0  # seconds for which a request id is remembered


class MemoryStore(ConfigStore):
    """Keeps everything in memory; takes the same arguments as the other backends.

    Stores of one ``service`` and ``name`` (or ``location["NAME"]``) in a process share one
    content; without a name each has its own. ``log_length`` is the number of events that the
    log holds (the first store of a name decides). After a fork, parent and child have a copy each.
    """

    _shared: ClassVar[dict[tuple[str, str], _Content]] = {}

    def __init__(
        self,
        service: str = "",
        location: Mapping[str, Any] | None = None,
        client_kwargs: Mapping[str, Any] | None = None,
        log_length: int = LOG_LENGTH,
        *,
        name: str | None = None,
    ) -> None:
        options = {**(location or {}), **(client_kwargs or {})}
        name = options.pop("NAME", name)
        if options:
            raise ValueError(f"a MemoryStore has no option {min(options)!r}: its LOCATION takes NAME alone")
        fresh = _Content(log_length)
        self._content = fresh if name is None else self._shared.setdefault((service, name), fresh)
        self._closed = False

    def head(self) -> Head:
        """Where the history stands."""
        with self._opened() as content:
            return content.head()

    def scan(self, cursor: str, limit: int) -> tuple[str, dict[str, str]]:
        """One page of the index in the order of ids; the cursor is the last id of the page."""
        with self._opened() as content:
            ids = heapq.nsmallest(limit + 1, (tenant_id for tenant_id in content.records if tenant_id > cursor))
            page = {tenant_id: content.records[tenant_id].packed for tenant_id in ids[:limit]}
        return (ids[limit - 1] if len(ids) > limit else ""), page

    def get_many(self, tenant_ids: Sequence[str]) -> dict[str, StoredRecord]:
        """The records of those of ``tenant_ids`` that exist and are not deleted."""
        with self._opened() as content:
            found = {tenant_id: content.records.get(tenant_id) for tenant_id in tenant_ids}
        return {tenant_id: record for tenant_id, record in found.items() if record and record.state != DELETED}

    def commit(self, ops: Sequence[Op], *, request_id: str, epoch: str | None = None) -> int:
        """Apply all of ``ops`` in order, or nothing, and return the last one's revision."""
        check_ops(ops)
        with self._opened() as content:
            return content.commit(ops, request_id, epoch)

    def _announced(self, rev: int, wait: float) -> bool:
        with self._opened() as content:
            content.changed.wait_for(lambda: self._closed or content.rev > rev, wait)
            self._check_open()
            return content.rev > rev

    def _log(self, rev: int, limit: int) -> list[Event]:
        with self._opened() as content:
            return list(islice((event for event in content.log if event.rev > rev), limit))

    keeps_house = True

    def purge(self, older_than: float) -> int:
        """Forget the tombstones that are older than so many seconds; returns how many."""
        with self._opened() as content:
            return content.purge(time.time() * 1000 - older_than * 1000)

    def insist(self, min_reader: int) -> None:
        """Refuse readers of an older format."""
        with self._opened() as content:
            content.min_reader = min_reader

    keeps_claims = True

    def claim(self, name: str, member: str, seconds: float, by: str = "") -> bool:
        """Whether ``member`` was not in the set ``name``, or is by the same; the set lives for ``seconds`` more."""
        with self._opened() as content:
            members = content.members(name)
            fresh = member not in members
            before = members.setdefault(member, by)
            content.claims[name] = (time.monotonic() + seconds, members)
            return fresh or bool(by and before == by)

    def claimed(self, name: str) -> set[str]:
        """The members of a set."""
        with self._opened() as content:
            return set(content.members(name))

    def release(self, name: str, member: str) -> None:
        """Take ``member`` out of the set."""
        with self._opened() as content:
            content.members(name).pop(member, None)

    keeps_leases = True

    def lease(self, name: str, value: str, seconds: float) -> int:
        """Say ``value`` under ``name`` for ``seconds``; returns how many leases there are."""
        with self._opened() as content:
            content.leases[name] = (time.monotonic(), seconds, value)
            return len(content.living(time.monotonic()))

    def leases(self) -> dict[str, Lease]:
        """What was said and is not forgotten yet."""
        with self._opened() as content:
            now = time.monotonic()
            return {name: Lease(value, now - said_at) for name, (said_at, _, value) in content.living(now).items()}

    def clear(self) -> None:
        """Forget everything, like a server that lost its data: the next commit begins another history."""
        with self._opened() as content:
            content.clear()

    def close(self) -> None:
        """Wake a blocked ``changes`` and refuse later use; the content stays for stores of the same name."""
        self._closed = True
        with self._content.changed:
            self._content.changed.notify_all()

    def reset_after_fork(self) -> None:
        """Replace the lock, which another thread of the parent may have held."""
        self._content.changed = threading.Condition()

    @contextmanager
    def _opened(self) -> Iterator[_Content]:
        with self._content.changed:
            self._check_open()
            yield self._content

    def _check_open(self) -> None:
        if self._closed:
            raise StoreUnavailable("this MemoryStore was closed")


class _Content:
    """What a store holds. Its methods are called with ``changed`` held."""

    def __init__(self, log_length: int) -> None:
        self.changed = threading.Condition()
        self.log: deque[Event] = deque(maxlen=log_length)
        self.records: dict[str, StoredRecord] = {}
        self.claims: dict[str, tuple[float, dict[str, str]]] = {}  # name: time.monotonic() of the end, by whom
        self.leases: dict[str, tuple[float, float, str]] = {}  # name: time.monotonic() when said, seconds, value
        self._requests: dict[str, tuple[float, int]] = {}
        self.clear()

    def clear(self) -> None:
        self.epoch, self.rev, self.chain, self.min_reader = "", 0, "", 0
        for content in (self.log, self.records, self.claims, self.leases, self._requests):
            content.clear()

    def head(self) -> Head:
        if not self.epoch:
            raise EpochChanged("the config store is empty: no configuration was ever written to it")
        check_reader(self.min_reader)
        return Head(self.epoch, self.rev, self.chain)

    def members(self, name: str) -> dict[str, str]:
        now = time.monotonic()
        for old in [old for old, (end, _) in self.claims.items() if end <= now]:
            del self.claims[old]
        return self.claims[name][1] if name in self.claims else {}

    def living(self, now: float) -> dict[str, tuple[float, float, str]]:
        self.leases = {name: said for name, said in self.leases.items() if now - said[0] < said[1]}
        return self.leases

    def purge(self, before: float) -> int:
        old = [t for t, one in self.records.items() if one.state == DELETED and 0 < stamp(one.packed).at < before]
        purged = old[: len(self.records) - 1]
        for tenant_id in purged:
            del self.records[tenant_id]
        return len(purged)

    def commit(self, ops: Sequence[Op], request_id: str, epoch: str | None) -> int:
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
