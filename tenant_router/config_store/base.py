"""The contract of a config store: six verbs and five errors; what else a backend may do is in ``optional``.

What a store holds:

- a *record* per tenant: its encoded configuration;
- the *index*: each tenant's latest revision, state and digest, without the configuration, so
  that a reader sees cheaply what it must fetch;
- the *log*: the latest operations in order, so that a reader that was here before reads only
  what came since.

Everything else (the watch loop, backoff, decoding, refusing bad records) lives above it, so a
backend is a handful of primitives. Only :class:`~tenant_router.exceptions.StoreUnavailable`,
``EpochChanged``, ``Compacted``, ``Conflict`` and ``Denied`` may leave a backend.

The *head* says where a store stands, in three values. ``rev``, the revision, counts the
operations without holes. ``epoch`` is a random name that the history gets when the store is
initialised, so another one means that the store was emptied. ``chain`` is a hash over all
operations: it tells a history that was rolled back and written on, even at the same revision.

Readers and writers of several releases share a store. So what is stored has room to grow: an
entry of the index may have more fields than a reader knows, which it ignores and keeps; and
``READS`` is what an operator may insist on (``min_reader``) before something is written that
older readers would misread.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from tenant_router.config_store.optional import Lease as Lease  # a part of the contract: backends import it from here
from tenant_router.config_store.optional import OptionalVerbs
from tenant_router.exceptions import Compacted, Denied, EpochChanged

MAX_BODY = 256 * 1024  # bytes of one encoded record
MAX_OPS = 5_000  # operations of one commit: a script that long still stalls Redis for under 50 ms only
INDEX_PAGE = 1_000  # entries read at once
FORMAT = 1  # of what is stored, as this release writes it
READS = 1  # the newest format that this release understands
META_ID = "@meta"  # the reserved record of mapping_metadata; no tenant id can have this name

ACTIVE, PROVISIONING, SUSPENDED, DRAINING, DELETED = "A", "P", "S", "D", "X"
STATE_NAMES = {
    ACTIVE: "active",
    PROVISIONING: "provisioning",
    SUSPENDED: "suspended",
    DRAINING: "draining",
    DELETED: "deleted",
}


class Head(NamedTuple):
    """Where a store stands: its history's name, its latest revision, and the hash of all operations so far."""

    epoch: str
    rev: int
    chain: str


UNREADABLE = "0:?:"  # what stands for an entry of the index that cannot be understood: its tenant is not served


def pack(rev: int, state: str, digest: str, tail: str = "") -> str:
    """An index entry, ``<rev>:<state>:<digest><tail>``: one string, because a process may hold 100,000 of them.

    ``tail`` is ``:<milliseconds>:<incarnation>``, see :func:`stamp`, and what later releases add to it. It has no
    upper-case letter, which so is a state's alone.
    """
    return f"{rev}:{state}:{digest}{tail}"


def packed_state(value: str) -> str:
    """The state letter of an index entry."""
    return value[value.index(":") + 1]


def unpack(value: str) -> tuple[int, str, str]:
    """Revision, state letter and digest ('' when deleted) of an index entry."""
    rev, state, digest = value.split(":", 3)[:3]
    return int(rev), state, digest


def tail_of(value: str) -> str:
    """What :func:`pack` was given as ``tail``."""
    rest = value.split(":", 3)[3:]
    return f":{rest[0]}" if rest else ""


class Stamp(NamedTuple):
    """When the tenant was changed, in milliseconds since 1970 by the store's clock, and which life of it that was.

    ``incarnation`` is the revision at which the tenant was created, anew after each deletion. 0 is unknown.
    """

    at: int
    incarnation: int


def stamp(value: str) -> Stamp:
    """The stamp of an entry of the index."""
    fields = (*value.split(":")[3:5], "", "")
    return Stamp(*(int(field) if field.isdigit() else 0 for field in fields[:2]))


class StoredRecord(NamedTuple):
    """One tenant's encoded configuration (``body``), and the revision, state, digest and tail of its index entry."""

    rev: int
    state: str
    digest: str
    body: bytes
    tail: str = ""

    @property
    def packed(self) -> str:
        """Its index entry."""
        return pack(self.rev, self.state, self.digest, self.tail)

    def __repr__(self) -> str:  # the body holds passwords
        return f"<{type(self).__name__} {self.packed} of {len(self.body)} bytes>"


class Event(NamedTuple):
    """One operation of the log: tenant ``tenant_id`` came to ``state`` at ``rev``. The log has no body, and no secret.

    ``record`` is the tenant's record where the backend read it along, then or later than this event.
    """

    rev: int
    tenant_id: str
    state: str
    digest: str
    chain: str
    record: StoredRecord | None = None
    tail: str = ""

    @property
    def packed(self) -> str:
        """The index entry that it makes."""
        return pack(self.rev, self.state, self.digest, self.tail)


class Op(NamedTuple):
    """One write of a commit.

    ``state`` DELETED removes the record and leaves a tombstone (``body`` is ignored).
    ``expect`` is the revision the tenant must have: 0 for "does not exist or is deleted",
    ``None`` for any.
    """

    tenant_id: str
    state: str
    body: bytes = b""
    expect: int | None = None

    @property
    def digest(self) -> str:
        """What the index and the log say of the body: a BLAKE2 hash, 16 hex digits."""
        return "" if self.state == DELETED else digest_of(self.body)

    def __repr__(self) -> str:  # the body holds passwords
        return (
            f"<{type(self).__name__} {self.tenant_id!r} {self.state} of {len(self.body)} bytes, expect {self.expect}>"
        )


def digest_of(body: bytes) -> str:
    """The digest of an encoded body. Bodies carry a nonce, so it tells nothing of their secrets."""
    return hashlib.blake2b(body, digest_size=8).hexdigest()


def next_chain(chain: str, rev: int, tenant_id: str, state: str, digest: str) -> str:
    """The chain after one more operation: 40 hex digits of SHA-1, against accidents and not against forgers."""
    return hashlib.sha1(f"{chain}|{rev}|{tenant_id}|{state}|{digest}".encode(), usedforsecurity=False).hexdigest()


class ConfigStore(OptionalVerbs, ABC):
    """Base of all backends: the contract, and the algorithm of ``changes`` that they share.

    Backends are thread-safe, take plain arguments and import no Django.
    """

    read_along: Callable[[str], bool] = staticmethod(lambda tenant_id: False)
    """Whether the reader of the log wants this tenant's record as well; a backend may then send it along."""

    @abstractmethod
    def head(self) -> Head:
        """Where the history stands.

        Raises ``EpochChanged`` when the store was never written, ``Denied`` when its ``min_reader`` is above ``READS``.
        """

    @abstractmethod
    def scan(self, cursor: str, limit: int) -> tuple[str, Mapping[str, str]]:
        """One page of the index, tombstones included: tenant -> index entry (see :func:`pack`).

        Begin with the cursor ``""`` and go on until it comes back empty. An entry that is there
        throughout is returned; duplicates are allowed. ``limit`` is a hint. An entry that cannot be
        understood is ``UNREADABLE``: its tenant exists, and nobody knows how.
        """

    def index(self) -> dict[str, str]:
        """The whole index, read by :meth:`scan`."""
        found: dict[str, str] = {}
        cursor = ""
        while True:
            cursor, page = self.scan(cursor, INDEX_PAGE)
            found.update(page)
            if not cursor:
                return found

    @abstractmethod
    def get_many(self, tenant_ids: Sequence[str]) -> Mapping[str, StoredRecord]:
        """The records of those of ``tenant_ids`` that exist, are not deleted and can be read."""

    @abstractmethod
    def commit(self, ops: Sequence[Op], *, request_id: str, epoch: str | None = None) -> int:
        """Apply all of ``ops`` in order, or nothing, and return the revision of the last.

        Each operation takes one revision, and its entry tells its :class:`Stamp`. A ``request_id`` seen
        within the last hour has no effect again and returns what it returned before, so a write whose
        answer was lost can be repeated. With ``epoch`` the history must be that one, else
        ``EpochChanged``; without it an empty store is initialised. ``Conflict`` when an ``expect`` does
        not hold; ``ValueError`` for more than ``MAX_OPS`` operations or a body above ``MAX_BODY`` bytes.
        """

    def changes(self, after: Head, limit: int = 500, wait: float = 0.0) -> list[Event]:
        """The events that follow ``after``, oldest first, at most ``limit``; ``[]`` after ``wait`` seconds.

        They are contiguous with ``after`` and of its history: a gap raises ``Compacted``, another
        history ``EpochChanged``. After a silent wait the head is compared, so a lost push costs
        ``wait`` seconds and nothing else.
        """
        if self._announced(after.rev, wait):
            events = self._log(after.rev, limit)
            if events:
                return _follow(after, events)
        head = self.head()
        if head.epoch != after.epoch or head.rev < after.rev:
            raise EpochChanged(f"the store is at revision {head.rev} of another history than revision {after.rev}")
        if head.rev == after.rev:
            if head.chain != after.chain:
                raise EpochChanged(f"the store's history up to revision {head.rev} is not the one that was followed")
            return []
        return _follow(after, self._log(after.rev, limit))

    @abstractmethod
    def _announced(self, rev: int, wait: float) -> bool:
        """Wait up to ``wait`` seconds for the push of a revision above ``rev``; whether reading may find one."""

    @abstractmethod
    def _log(self, rev: int, limit: int) -> list[Event]:
        """The first ``limit`` events of the log above ``rev``, oldest first."""

    def chain_at(self, rev: int) -> str | None:
        """The chain of the present history after revision ``rev``; ``None`` where that is not known (any more)."""
        head = self.head()
        if rev == head.rev:
            return head.chain
        events = self._log(rev - 1, 1) if 0 < rev < head.rev else []
        return events[0].chain if events and events[0].rev == rev else None

    @contextmanager
    def hurried(self, seconds: float) -> Iterator[ConfigStore]:
        """This store for somebody in a hurry: no answer takes longer than ``seconds``, and no socket stays open."""
        yield self

    @abstractmethod
    def close(self) -> None:
        """Free all resources and wake a blocked ``changes``; idempotent. Later use raises ``StoreUnavailable``."""

    @abstractmethod
    def reset_after_fork(self) -> None:
        """In a forked child: forget the parent's sockets and locks without disturbing the parent."""


def check_reader(min_reader: int) -> None:
    """Raise ``Denied`` where a store insists on newer readers than this release is."""
    if min_reader > READS:
        raise Denied(
            f"the config store insists on readers of format {min_reader}, and this release understands {READS}: "
            "upgrade tenant_router here"
        )


def check_ops(ops: Sequence[Op]) -> None:
    """Refuse a commit that is empty, too long, or carries a body that is too large (``ValueError``)."""
    if not 0 < len(ops) <= MAX_OPS:
        raise ValueError(f"a commit takes 1 to {MAX_OPS} operations, not {len(ops)}")
    for op in ops:
        if len(op.body) > MAX_BODY:
            raise ValueError(f"the record of {op.tenant_id!r} has {len(op.body)} bytes; {MAX_BODY} are allowed")


def _follow(after: Head, events: list[Event]) -> list[Event]:
    """Return ``events`` if they continue ``after`` without a gap and on the same chain."""
    rev, chain = after.rev, after.chain
    for event in events:
        if event.rev != rev + 1:
            raise Compacted(f"the log goes on at revision {event.rev} after {rev}: the index must be read again")
        rev, chain = event.rev, next_chain(chain, event.rev, event.tenant_id, event.state, event.digest)
        if event.chain != chain:
            raise EpochChanged(f"revision {event.rev} belongs to another history than the one that was followed")
    if not events:
        raise Compacted(f"the log holds nothing above revision {after.rev}: the index must be read again")
    return events
