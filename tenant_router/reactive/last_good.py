"""The last state that the processes of this host have read, in an encrypted file.

A server with ``BOOT = "last_good"`` starts from it when the store is away, and a record that was
never used here is read from it during an outage. It is a SQLite file: any process may write it,
one at a time, and a write that is cut off leaves what was there.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tenant_router.config_store.base import DELETED, Head, StoredRecord, packed_state
from tenant_router.exceptions import ConfigurationError, LastGoodUnusable

if TYPE_CHECKING:
    from cryptography.fernet import MultiFernet

logger = logging.getLogger(__name__)

GAP = 30.0  # seconds between two writes of one process
REFRESH = 600.0  # seconds after which a file that is still right is dated anew
PORTION = 2_000  # records of one write: it happens in the thread that follows the store
_APPLICATION = 0x54524C47
_TABLES = f"""
PRAGMA application_id = {_APPLICATION};
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

    def index(self) -> tuple[float, dict[str, str]]:
        """The file's age in seconds, and the index entries that it holds. Raises ``LastGoodUnusable``."""
        try:
            with closing(self._opened("ro")) as file:
                head = self._head(file)
                entries = dict(file.execute("SELECT tenant, entry FROM entries"))
        except (sqlite3.Error, OSError) as error:
            raise LastGoodUnusable(f"the last-good file {self._path} cannot be read: {error}") from error
        if head is None or head["service"] != self._service:
            raise LastGoodUnusable(f"the last-good file {self._path} holds nothing of service {self._service!r}")
        if head["digest"] != _digest(entries):
            raise LastGoodUnusable(f"the last-good file {self._path} was changed by somebody else")
        age = max(0.0, time.time() - head["at"])
        if not head["complete"] or age > self._max_age:
            what = f"is {age:.0f} s old" if head["complete"] else "was never complete"
            raise LastGoodUnusable(f"the last-good file {self._path} {what}")
        return age, entries

    def get_many(self, tenant_ids: Sequence[str]) -> dict[str, StoredRecord]:
        """The records of those of ``tenant_ids`` that the file holds; none when it cannot be read."""
        from cryptography.fernet import InvalidToken

        try:
            with closing(self._opened("ro")) as file:
                return {t: found for t in tenant_ids if (found := self._record(file, t)) is not None}
        except (sqlite3.Error, OSError, InvalidToken) as error:
            self._complain(f"the last-good file {self._path} cannot be read: {error or type(error).__name__}")
            return {}

    def _record(self, file: sqlite3.Connection, tenant_id: str) -> StoredRecord | None:
        query = "SELECT entry, token FROM entries JOIN bodies USING (tenant) WHERE tenant = ?"
        row = file.execute(query, (tenant_id,)).fetchone()
        if row is None:
            return None
        rev, state, digest = row[0].split(":", 2)
        return StoredRecord(int(rev), state, digest, self._fernet.decrypt(row[1]))

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

    def keep(self, head: Head, index: Mapping[str, str], fetch: Any) -> None:
        """Bring the file to ``head`` if it is time to. ``fetch`` reads records; raises what it raises."""
        now = time.monotonic()
        if now < self._next or (self._written == head and now < self._next - GAP + REFRESH):
            return
        self._next = now + GAP
        try:
            os.close(os.open(self._path, os.O_CREAT | os.O_RDWR, 0o600))
            if self._path.stat().st_size and not self._is_ours():
                raise OSError("it is no last-good file")
            with closing(self._opened("rw")) as file:
                self._write(file, head, dict(index), fetch)
            self._complaint = ""
        except (sqlite3.Error, OSError) as error:
            self._complain(f"the last-good file {self._path} cannot be written: {error}")

    def _write(self, file: sqlite3.Connection, head: Head, index: dict[str, str], fetch: Any) -> None:
        try:
            file.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return  # another process of this host writes
        complete = self._update(file, head, index, fetch)
        file.execute("COMMIT")
        if complete:
            self._written = head
        else:
            self._next = 0.0  # the next portion

    def _update(self, file: sqlite3.Connection, head: Head, index: dict[str, str], fetch: Any) -> bool:
        held = dict(file.execute("SELECT tenant, entry FROM entries"))
        before = self._usable_head(file)
        if before is None:
            held = {}
            for table in ("entries", "bodies", "head"):
                file.execute(f"DELETE FROM {table}")
        elif before["complete"] and before["epoch"] == head.epoch and before["rev"] > head.rev:
            return True  # another process is ahead
        for tenant_id in held.keys() - index.keys():
            _drop(file, tenant_id)
            del held[tenant_id]
        differing = [tenant_id for tenant_id, entry in index.items() if held.get(tenant_id) != entry]
        portion = differing[:PORTION]
        held |= self._put(file, portion, index, fetch)
        complete = len(differing) <= PORTION
        self._put_head(file, head, held, complete or bool(before and before["complete"]))
        return complete

    def _usable_head(self, file: sqlite3.Connection) -> dict[str, Any] | None:
        try:
            head = self._head(file)
        except LastGoodUnusable:
            return None
        return head if head is not None and head["service"] == self._service else None

    def _put(
        self, file: sqlite3.Connection, tenant_ids: Iterable[str], index: Mapping[str, str], fetch: Any
    ) -> dict[str, str]:
        written = {}
        wanted = [t for t in tenant_ids if packed_state(index[t]) != DELETED]
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

    def _put_head(self, file: sqlite3.Connection, head: Head, entries: Mapping[str, str], complete: bool) -> None:
        said = {
            "service": self._service,
            "epoch": head.epoch,
            "rev": head.rev,
            "at": time.time(),
            "digest": _digest(entries),
            "complete": complete,
        }
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
