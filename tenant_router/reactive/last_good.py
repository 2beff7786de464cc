"""The last state that the processes of this host have read, in an encrypted file.

A server with ``BOOT = "last_good"`` starts from it when the store is away, and a record that was
never used here is read from it during an outage. It is a SQLite file: any process may write it,
one at a time, and a write that is cut off leaves what was there. It belongs to one service, and
holds the present history of its store: what a restore discarded goes from it at once.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tenant_router.config_store.base import DELETED, Head, StoredRecord, packed_state
from tenant_router.exceptions import LastGoodUnusable
from tenant_router.reactive.last_good_file import LastGoodFile, Tables, index_digest, is_damage

logger = logging.getLogger(__name__)

Fetch = Callable[[Sequence[str]], Mapping[str, StoredRecord]]
GAP = 30.0  # seconds between two writes of one process
REFRESH = 600.0  # seconds after which a file that is still right is dated anew
AHEAD = 300.0  # seconds by which clocks differ; a file that is dated later than that was written by a wrong one
PORTION = 2_000  # records of one write: it happens in the thread that follows the store


class LastGood:
    """The file at ``path``. ``keys`` are Fernet keys: the first encrypts, all decrypt.

    ``max_age``: seconds after which its content is not served any more. Raises ``ConfigurationError``.
    """

    def __init__(self, path: str, service: str, keys: Sequence[str], max_age: float) -> None:
        self._path, self._service, self._max_age = Path(path), service, max_age
        self._file = LastGoodFile(self._path, service, keys)
        self._written: Head | None = None
        self._next, self._complaint = 0.0, ""
        self._damaged = False  # as who read it found

    # --- reading ---

    def index(self) -> tuple[float, Head | None, dict[str, str]]:
        """The file's age in seconds, the head that its index entries are of, if it is a single one, and those.

        Raises ``LastGoodUnusable``.
        """
        try:
            with self._file.read() as tables:
                head, entries = tables.head(), tables.entries()
        except (sqlite3.Error, OSError) as error:
            self._note_damage(error)
            raise LastGoodUnusable(f"the last-good file {self._path} cannot be read: {error}") from error
        if head is None:
            raise LastGoodUnusable(f"the last-good file {self._path} holds nothing of service {self._service!r}")
        if not all(type(each) is str for entry in entries.items() for each in entry) or (
            head["digest"] != index_digest(entries)
        ):
            raise LastGoodUnusable(f"the last-good file {self._path} was changed by somebody else")
        age = time.time() - head["at"]
        if not head["complete"] or not -AHEAD <= age <= self._max_age:
            what = f"is {age:.0f} s old" if head["complete"] else "was never complete"
            if head["complete"] and age < 0:
                what = f"is dated {-age:.0f} s ahead of this clock: nobody knows how old it is"
            raise LastGoodUnusable(f"the last-good file {self._path} {what}")
        exact = Head(head["epoch"], head["rev"], head["chain"]) if head["exact"] else None
        return max(0.0, age), exact, entries

    def get_many(self, tenant_ids: Sequence[str]) -> dict[str, StoredRecord]:
        """The records of those of ``tenant_ids`` that the file holds; none when it cannot be read."""
        from cryptography.fernet import InvalidToken

        try:
            with self._file.read() as tables:
                if not tables.usable_head():
                    return {}
                return {t: found for t in tenant_ids if (found := tables.record(t)) is not None}
        except (sqlite3.Error, OSError, InvalidToken, ValueError, TypeError) as error:  # an entry may be no entry
            self._note_damage(error)
            self._complain(f"the last-good file {self._path} cannot be read: {error or type(error).__name__}")
            return {}

    # --- writing ---

    def hasten(self) -> None:
        """What the file holds may be another history by now: it is time to write it, whenever that was done last."""
        self._next = 0.0

    def keep(
        self,
        head: Head,
        index: Mapping[str, str],
        fetch: Fetch,
        chain_at: Callable[[int], str | None] = lambda rev: None,
    ) -> None:
        """Bring the file to ``head`` if it is time to.

        ``fetch`` reads records, ``chain_at`` is the store's; raises what they raise.
        """
        now = time.monotonic()
        if now < self._next or (self._written == head and now < self._next - GAP + REFRESH):
            return
        self._next = now + GAP
        try:
            if self._damaged:
                self._file.discard()
                self._damaged = False
            with self._file.write() as tables:
                self._write(tables, head, dict(index), fetch, chain_at)
            self._complaint = ""
        except (sqlite3.Error, OSError) as error:
            self._complain(f"the last-good file {self._path} cannot be written: {error}")

    def _write(
        self,
        tables: Tables,
        head: Head,
        index: dict[str, str],
        fetch: Fetch,
        chain_at: Callable[[int], str | None],
    ) -> None:
        if not tables.begin():
            return  # another process of this host writes
        tables.claim()
        before = tables.usable_head()
        discarded = before is not None and _is_discarded(before, head, chain_at)
        if before is not None and not discarded and before["epoch"] == head.epoch and before["rev"] > head.rev:
            complete = True  # another process is ahead
        else:
            complete = self._update(tables, head, index, fetch, before, bool(discarded))
        tables.commit()
        if complete:
            self._written = head
        else:
            self._next = 0.0  # the next portion

    def _update(
        self,
        tables: Tables,
        head: Head,
        index: dict[str, str],
        fetch: Fetch,
        before: dict[str, Any] | None,
        discarded: bool,
    ) -> bool:
        held = tables.entries()
        if before is None:
            held = {}
            tables.clear()
        for tenant_id in held.keys() - index.keys():
            tables.drop(tenant_id)
            del held[tenant_id]
        differing = [tenant_id for tenant_id, entry in index.items() if held.get(tenant_id) != entry]
        portion = differing[:PORTION]
        held |= _put(tables, portion, index, fetch)
        exact = len(differing) <= PORTION
        before_was = bool(before and before["complete"] and not discarded)
        _put_head(tables, head, held, exact=exact, complete=exact or before_was)
        return exact

    def _note_damage(self, error: Exception) -> None:
        """Have the file written anew: who writes what differs alone need not come to where it is damaged."""
        if is_damage(error):
            self._damaged, self._next = True, 0.0

    def _complain(self, what: str) -> None:
        """Warn once of each trouble: this is asked often."""
        if what != self._complaint:
            logger.warning("%s", what)
        self._complaint = what


def _is_discarded(before: Mapping[str, Any], head: Head, chain_at: Callable[[int], str | None]) -> bool:
    """Whether the file holds what the store had, and has not any more."""
    if before["epoch"] != head.epoch:
        return True
    chain = chain_at(before["rev"])
    # what the log does not tell any more is older than we are, and what it does not tell yet was never to be
    return chain != before["chain"] and (chain is not None or before["rev"] > head.rev)


def _put(tables: Tables, tenant_ids: Iterable[str], index: Mapping[str, str], fetch: Fetch) -> dict[str, str]:
    """Write these tenants as ``index`` has them, or newer; returns the entries that were written."""
    written = {}
    wanted = [t for t in tenant_ids if packed_state(index[t]) not in (DELETED, "?")]
    records = fetch(wanted) if wanted else {}
    for tenant_id in tenant_ids:
        record = records.get(tenant_id)
        written[tenant_id] = record.packed if record else index[tenant_id]
        tables.put(tenant_id, written[tenant_id], record)
    return written


def _put_head(tables: Tables, head: Head, entries: Mapping[str, str], *, exact: bool, complete: bool) -> None:
    about = {"at": time.time(), "digest": index_digest(entries), "exact": exact, "complete": complete}
    tables.put_head({**head._asdict(), **about})
