"""The tables of a last-good file: whose it is, the head it is of, the entries of the index, and encrypted bodies."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tenant_router.config_store.base import StoredRecord, tail_of, unpack
from tenant_router.exceptions import ConfigurationError, LastGoodUnusable
from tenant_router.reactive import private_file

if TYPE_CHECKING:
    from cryptography.fernet import MultiFernet

_APPLICATION = 0x54524C47
_TABLES = f"""
PRAGMA application_id = {_APPLICATION};
CREATE TABLE IF NOT EXISTS owner (one INTEGER PRIMARY KEY CHECK (one = 1), service TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS head (one INTEGER PRIMARY KEY CHECK (one = 1), token BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS entries (tenant TEXT PRIMARY KEY, entry TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS bodies (tenant TEXT PRIMARY KEY, token BLOB NOT NULL);
"""


class Tables:
    """The file while it is open, for ``service``. Raises ``sqlite3.Error`` where it cannot be used."""

    def __init__(self, connection: sqlite3.Connection, path: Path, service: str, fernet: MultiFernet) -> None:
        self._connection, self._path, self._service, self._fernet = connection, path, service, fernet

    def begin(self) -> bool:
        """Begin to write; whether nobody else of this host does."""
        try:
            self._connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return False
        return True

    def commit(self) -> None:
        """Make what was written since :meth:`begin` the file's content."""
        self._connection.execute("COMMIT")

    def claim(self) -> None:
        """Make the file this service's. Raises ``OSError`` if it is another one's."""
        row = self._connection.execute("SELECT service FROM owner").fetchone()
        if row is None:
            self._connection.execute("INSERT INTO owner VALUES (1, ?)", (self._service,))
        elif row[0] != self._service:
            raise OSError(f"it belongs to service {row[0]!r}: each service needs a file of its own")

    def head(self) -> dict[str, Any] | None:
        """What :meth:`put_head` wrote, if that was for this service. Raises ``LastGoodUnusable`` for another key."""
        from cryptography.fernet import InvalidToken

        row = self._connection.execute("SELECT token FROM head").fetchone()
        if row is None:
            return None
        try:
            head: dict[str, Any] = json.loads(self._fernet.decrypt(row[0]))
        except InvalidToken as error:
            raise LastGoodUnusable(f"the last-good file {self._path} was encrypted with another key") from error
        return head if head.get("service") == self._service and "exact" in head else None

    def usable_head(self) -> dict[str, Any] | None:
        """As :meth:`head`; ``None`` where that raises."""
        try:
            return self.head()
        except LastGoodUnusable:
            return None

    def put_head(self, said: Mapping[str, Any]) -> None:
        """Replace the head."""
        token = self._fernet.encrypt(json.dumps({**said, "service": self._service}).encode())
        self._connection.execute("REPLACE INTO head VALUES (1, ?)", (token,))

    def entries(self) -> dict[str, str]:
        """The index that the file holds."""
        return dict(self._connection.execute("SELECT tenant, entry FROM entries"))

    def record(self, tenant_id: str) -> StoredRecord | None:
        """A tenant's record, if the file has it. Raises ``InvalidToken`` for another key."""
        query = "SELECT entry, token FROM entries JOIN bodies USING (tenant) WHERE tenant = ?"
        row = self._connection.execute(query, (tenant_id,)).fetchone()
        if row is None:
            return None
        return StoredRecord(*unpack(row[0]), self._fernet.decrypt(row[1]), tail_of(row[0]))

    def put(self, tenant_id: str, entry: str, record: StoredRecord | None) -> None:
        """Replace what the file has of a tenant."""
        self._connection.execute("REPLACE INTO entries VALUES (?, ?)", (tenant_id, entry))
        if record is None:
            self._connection.execute("DELETE FROM bodies WHERE tenant = ?", (tenant_id,))
        else:
            token = self._fernet.encrypt(record.body)
            self._connection.execute("REPLACE INTO bodies VALUES (?, ?)", (tenant_id, token))

    def drop(self, tenant_id: str) -> None:
        """Forget a tenant."""
        for table in ("entries", "bodies"):
            self._connection.execute(f"DELETE FROM {table} WHERE tenant = ?", (tenant_id,))

    def clear(self) -> None:
        """Forget all but whose the file is."""
        for table in ("entries", "bodies", "head"):
            self._connection.execute(f"DELETE FROM {table}")


class LastGoodFile:
    """The SQLite file at ``path`` of ``service``. ``keys`` are Fernet keys: the first encrypts, all decrypt.

    Raises ``ConfigurationError`` for keys that are none.
    """

    def __init__(self, path: Path, service: str, keys: Sequence[str]) -> None:
        self._path, self._service, self._fernet = path, service, _fernet(keys)

    @contextmanager
    def read(self) -> Iterator[Tables]:
        """The file, open for reading. Raises ``sqlite3.Error`` or ``OSError``."""
        private_file.check_readable(self._path)
        with closing(self._opened("ro")) as connection:
            yield Tables(connection, self._path, self._service, self._fernet)

    @contextmanager
    def write(self) -> Iterator[Tables]:
        """The file, open for writing, made if it is not there. Raises ``sqlite3.Error`` or ``OSError``."""
        private_file.claim(self._path)
        if self._path.stat().st_size and not self._is_ours():
            raise OSError("it is no last-good file")
        try:
            with closing(self._opened("rw")) as connection:
                connection.executescript(_TABLES)
                yield Tables(connection, self._path, self._service, self._fernet)
        except sqlite3.DatabaseError as error:
            if is_damage(error):
                self.discard()
            raise

    def discard(self) -> None:
        """Remove what was damaged: nothing of it can be saved."""
        if self._is_ours():
            self._path.unlink()

    def _opened(self, mode: Literal["ro", "rw"]) -> sqlite3.Connection:
        where = f"{self._path.absolute().as_uri()}?mode={mode}"
        return sqlite3.connect(where, uri=True, timeout=0, isolation_level=None)

    def _is_ours(self) -> bool:
        """Whether the file was made here: a path that is misspelt must not cost anybody a file."""
        if not self._path.is_file() or self._path.is_symlink():
            return False
        with self._path.open("rb") as file:
            header = file.read(100)  # bytes 68 to 71 of an SQLite file are its application_id
        return header.startswith(b"SQLite format 3\0") and header[68:72] == _APPLICATION.to_bytes(4, "big")


def is_damage(error: Exception) -> bool:
    """Whether the file is damaged, and not locked, full or read-only, which have types of their own."""
    return type(error) is sqlite3.DatabaseError


def index_digest(entries: Mapping[str, str]) -> str:
    """A hash over an index, 64 hex digits: it tells whether somebody else changed the file."""
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
