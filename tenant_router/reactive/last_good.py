"""The last state that the processes of this host have read, in an encrypted file.

A server with ``BOOT = "last_good"`` starts from it when the store is away, and a record that was
never used here is read from it during an outage. It is a SQLite file: any process may write it,
one at a time, and a write that is cut off leaves what was there. It belongs to one service, and
holds the present history of its store: what a restore discarded goes from it at once.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tenant_router.config_store.base import DELETED, Head, StoredRecord, packed_state, tail_of, unpack
from tenant_router.exceptions import ConfigurationError, LastGoodUnusable
from tenant_router.reactive import private_file

if TYPE_CHECKING:
    from cryptography.fernet import MultiFernet

logger = logging.getLogger(__name__)

Fetch = Callable[[Sequence[str]], Mapping[str, StoredRecord]]
GAP = 30.0  # seconds between two writes of one process
REFRESH = 600.0  # seconds after which a file that is still right is dated anew
AHEAD = 300.0  # seconds by which clocks differ; a file that is dated later than that was written by a wrong one
PORTION = 2_000  # records of one write: it happens in the thread that follows the store
_APPLICATION = 0x54524C47
_TABLES = f"""
PRAGMA application_id = {_APPLICATION};
CREATE TABLE IF NOT EXISTS owner (one INTEGER PRIMARY KEY CHECK (one = 1), service TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS head (one INTEGER PRIMARY KEY CHECK (one = 1), token BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS entries (tenant TEXT PRIMARY KEY, entry TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS bodies (tenant TEXT PRIMARY KEY, token BLOB NOT NULL);
"""


class LastGood:
    """The file at ``path``. ``keys`` are Fernet keys: the first encrypts, all decrypt.

    ``max_age``: seconds after which its content is not served any more. Raises ``ConfigurationError``.
    """

    def __init__(self, path: str, service: str, keys: Sequence[str], max_age: float) -> None:
        self._path, self._service, self._max_age = Path(path), service, max_age
        self._fernet = _fernet(keys)
        self._written: Head | None = None
        self._next, self._complaint = 0.0, ""

    # --- reading ---

    def index(self) -> tuple[float, Head | None, dict[str, str]]:
        """The file's age in seconds, the head that its index entries are of, if it is a single one, and those.

        Raises ``LastGoodUnusable``.
        """
        try:
            with closing(self._opened("ro")) as file:
                head = self._head(file)
                entries = dict(file.execute("SELECT tenant, entry FROM entries"))
        except (sqlite3.Error, OSError) as error:
            raise LastGoodUnusable(f"the last-good file {self._path} cannot be read: {error}") from error
        if head is None or head.get("service") != self._service or "exact" not in head:
            raise LastGoodUnusable(f"the last-good file {self._path} holds nothing of service {self._service!r}")
        if head["digest"] != _digest(entries):
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
            with closing(self._opened("ro")) as file:
                if not self._usable_head(file):
                    return {}
                return {t: found for t in tenant_ids if (found := self._record(file, t)) is not None}
        except (sqlite3.Error, OSError, InvalidToken) as error:
            self._complain(f"the last-good file {self._path} cannot be read: {error or type(error).__name__}")
            return {}

    def _record(self, file: sqlite3.Connection, tenant_id: str) -> StoredRecord | None:
        query = "SELECT entry, token FROM entries JOIN bodies USING (tenant) WHERE tenant = ?"
        row = file.execute(query, (tenant_id,)).fetchone()
        if row is None:
            return None
        return StoredRecord(*unpack(row[0]), self._fernet.decrypt(row[1]), tail_of(row[0]))

    def _head(self, file: sqlite3.Connection) -> dict[str, Any] | None:
        from cryptography.fernet import InvalidToken

        row = file.execute("SELECT token FROM head").fetchone()
        if row is None:
            return None
        try:
            head: dict[str, Any] = json.loads(self._fernet.decrypt(row[0]))
        except InvalidToken as error:
            raise LastGoodUnusable(f"the last-good file {self._path} was encrypted with another key") from error
        return head

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
            private_file.claim(self._path)
            if self._path.stat().st_size and not self._is_ours():
                raise OSError("it is no last-good file")
            with closing(self._opened("rw")) as file:
                self._write(file, head, dict(index), fetch, chain_at)
            self._complaint = ""
        except (sqlite3.Error, OSError) as error:
            self._complain(f"the last-good file {self._path} cannot be written: {error}")

    def _write(
        self,
        file: sqlite3.Connection,
        head: Head,
        index: dict[str, str],
        fetch: Fetch,
        chain_at: Callable[[int], str | None],
    ) -> None:
        try:
            file.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return  # another process of this host writes
        self._claim(file)
        before = self._usable_head(file)
        discarded = before is not None and _is_discarded(before, head, chain_at)
        if before is not None and not discarded and before["epoch"] == head.epoch and before["rev"] > head.rev:
            complete = True  # another process is ahead
        else:
            complete = self._update(file, head, index, fetch, before, bool(discarded))
        file.execute("COMMIT")
        if complete:
            self._written = head
        else:
            self._next = 0.0  # the next portion

    def _claim(self, file: sqlite3.Connection) -> None:
        """Make the file this service's. Raises ``OSError`` if it is another one's."""
        row = file.execute("SELECT service FROM owner").fetchone()
        if row is None:
            file.execute("INSERT INTO owner VALUES (1, ?)", (self._service,))
        elif row[0] != self._service:
            raise OSError(f"it belongs to service {row[0]!r}: each service needs a file of its own")

    def _update(
        self,
        file: sqlite3.Connection,
        head: Head,
        index: dict[str, str],
        fetch: Fetch,
        before: dict[str, Any] | None,
        discarded: bool,
    ) -> bool:
        held = dict(file.execute("SELECT tenant, entry FROM entries"))
        if before is None:
            held = {}
            for table in ("entries", "bodies", "head"):
                file.execute(f"DELETE FROM {table}")
        for tenant_id in held.keys() - index.keys():
            _drop(file, tenant_id)
            del held[tenant_id]
        differing = [tenant_id for tenant_id, entry in index.items() if held.get(tenant_id) != entry]
        portion = differing[:PORTION]
        held |= self._put(file, portion, index, fetch)
        exact = len(differing) <= PORTION
        before_was = bool(before and before["complete"] and not discarded)
        self._put_head(file, head, held, exact=exact, complete=exact or before_was)
        return exact

    def _usable_head(self, file: sqlite3.Connection) -> dict[str, Any] | None:
        try:
            head = self._head(file)
        except LastGoodUnusable:
            return None
        return head if head is not None and head.get("service") == self._service and "exact" in head else None

    def _put(
        self, file: sqlite3.Connection, tenant_ids: Iterable[str], index: Mapping[str, str], fetch: Fetch
    ) -> dict[str, str]:
        written = {}
        wanted = [t for t in tenant_ids if packed_state(index[t]) not in (DELETED, "?")]
        records = fetch(wanted) if wanted else {}
        for tenant_id in tenant_ids:
            record = records.get(tenant_id)
            entry = record.packed if record else index[tenant_id]
            written[tenant_id] = entry
            file.execute("REPLACE INTO entries VALUES (?, ?)", (tenant_id, entry))
            if record is None:
                file.execute("DELETE FROM bodies WHERE tenant = ?", (tenant_id,))
            else:
                file.execute("REPLACE INTO bodies VALUES (?, ?)", (tenant_id, self._fernet.encrypt(record.body)))
        return written

    def _put_head(
        self, file: sqlite3.Connection, head: Head, entries: Mapping[str, str], *, exact: bool, complete: bool
    ) -> None:
        about = {"service": self._service, "at": time.time(), "digest": _digest(entries)}
        said = {**head._asdict(), **about, "exact": exact, "complete": complete}
        file.execute("REPLACE INTO head VALUES (1, ?)", (self._fernet.encrypt(json.dumps(said).encode()),))

    def _opened(self, mode: str) -> sqlite3.Connection:
        where = f"{self._path.absolute().as_uri()}?mode={mode}"
        file = sqlite3.connect(where, uri=True, timeout=0, isolation_level=None)
        if mode == "rw":
            try:
                file.executescript(_TABLES)
            except sqlite3.Error as error:
                file.close()
                if not isinstance(error, sqlite3.OperationalError):  # which is locked, full or read-only
                    self._path.unlink()  # nothing of it can be saved
                raise
        return file

    def _is_ours(self) -> bool:
        """Whether the file was made here: a path that is misspelt must not cost anybody a file."""
        with self._path.open("rb") as file:
            header = file.read(100)  # bytes 68 to 71 of an SQLite file are its application_id
        return header.startswith(b"SQLite format 3\0") and header[68:72] == _APPLICATION.to_bytes(4, "big")

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


def _drop(file: sqlite3.Connection, tenant_id: str) -> None:
    for table in ("entries", "bodies"):
        file.execute(f"DELETE FROM {table} WHERE tenant = ?", (tenant_id,))


def _digest(entries: Mapping[str, str]) -> str:
    digest = hashlib.sha256()
    for tenant_id in sorted(entries):
        digest.update(f"{tenant_id}\n{entries[tenant_id]}\n".encode())
    return digest.hexdigest()


def _fernet(keys: Sequence[str]) -> MultiFernet:
    where = "TENANT_ROUTER_CONFIG_STORE_SETTINGS['OPTIONS']['KEYS']"
    try:
        from cryptography.fernet import Fernet, MultiFernet
    except ImportError as error:
        raise ConfigurationError("the last-good file is encrypted: pip install 'tenant_router[encryption]'") from error
    try:
        return MultiFernet([Fernet(key) for key in keys])
    except (ValueError, TypeError):  # whose messages may quote a key
        raise ConfigurationError(
            f"{where}: each is 32 bytes in URL-safe base64, as cryptography.fernet.Fernet.generate_key() makes them"
        ) from None
