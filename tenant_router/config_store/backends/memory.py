"""A config store inside one process: for tests, and for programs that need no other."""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, ClassVar

from tenant_router.config_store.backends.memory_content import Content
from tenant_router.config_store.base import (
    DELETED,
    ConfigStore,
    Event,
    Head,
    Lease,
    Op,
    StoredRecord,
    check_ops,
)
from tenant_router.exceptions import StoreUnavailable

LOG_LENGTH = 20_000  # events


class MemoryStore(ConfigStore):
    """Keeps everything in memory; takes the same arguments as the other backends.

    Stores of one ``service`` and ``name`` (or ``location["NAME"]``) in a process share one
    content; without a name each has its own. ``log_length`` is the number of events that the
    log holds (the first store of a name decides). After a fork, parent and child have a copy each.
    """

    _shared: ClassVar[dict[tuple[str, str], Content]] = {}

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
        fresh = Content(log_length)
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
            if member in members and not (by and members[member] == by):
                return False
            content.claims[name] = (time.monotonic() + seconds, {**members, member: by})
            return True

    def claimed(self, name: str) -> set[str]:
        """The members of a set."""
        with self._opened() as content:
            return set(content.members(name))

    def release(self, name: str, member: str, by: str = "") -> None:
        """Take ``member`` out of the set, unless another than ``by`` has claimed it."""
        with self._opened() as content:
            if by in ("", content.members(name).get(member)):
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

    keeps_notes = True

    def notes(self, book: str, names: Sequence[str]) -> dict[str, str]:
        """Those of the notes ``names`` of a book that there are."""
        with self._opened() as content:
            found = content.notes.get(book, {})
            return {name: found[name] for name in names if name in found}

    def scan_notes(self, book: str, cursor: str, limit: int) -> tuple[str, dict[str, str]]:
        """One page of a book in the order of names; the cursor is the last name of the page."""
        with self._opened() as content:
            found = content.notes.get(book, {})
            names = heapq.nsmallest(limit + 1, (name for name in found if name > cursor))
            page = {name: found[name] for name in names[:limit]}
        return (names[limit - 1] if len(names) > limit else ""), page

    def write_notes(self, book: str, notes: Mapping[str, str | None]) -> None:
        """Write all of ``notes``; ``None`` removes one."""
        with self._opened() as content:
            found = content.notes.setdefault(book, {})
            for name, value in notes.items():
                if value is None:
                    found.pop(name, None)
                else:
                    found[name] = value

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
    def _opened(self) -> Iterator[Content]:
        with self._content.changed:
            self._check_open()
            yield self._content

    def _check_open(self) -> None:
        if self._closed:
            raise StoreUnavailable("this MemoryStore was closed")
