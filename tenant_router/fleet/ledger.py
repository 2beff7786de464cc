"""What the databases of the fleet are like, kept in the store: a release connects to none that is up to date.

A note per database says its fingerprint. It is removed before a database is migrated and written when that is done, by
whatever migrates it. So a run that ends in between leaves a database that the next one looks at. While a migration runs
that the database cannot roll back, the note says its name: who finds that finds a database that is half done.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tenant_router.config_store.base import INDEX_PAGE, ConfigStore

BOOK = "schema"
UNDER_WAY = "!"  # what begins the name of a migration
MANY = 200  # notes from which on the whole book is read


class Ledger:
    """The fingerprints by connection alias. A store that keeps no notes knows none: every database is looked at."""

    def __init__(self, store: ConfigStore) -> None:
        self._store = store

    def read(self, aliases: Iterable[str]) -> Mapping[str, str]:
        """Those of ``aliases`` that are known. Raises ``StoreError``."""
        wanted = list(aliases)
        if not self._store.keeps_notes:
            return {}
        if len(wanted) < MANY:
            return self._store.notes(BOOK, wanted)
        found: dict[str, str] = {}
        cursor = ""
        while True:
            cursor, page = self._store.scan_notes(BOOK, cursor, INDEX_PAGE)
            found.update(page)
            if not cursor:
                return found

    def write(self, alias: str, fingerprint: str | None) -> None:
        """Note what a database is like; ``None``: nobody knows. Raises ``StoreError``."""
        if self._store.keeps_notes:
            self._store.write_notes(BOOK, {alias: fingerprint})

    def under_way(self, alias: str, migration: str | None) -> None:
        """Note that a migration has begun that cannot be rolled back; ``None``: that it has ended."""
        self.write(alias, None if migration is None else UNDER_WAY + migration)


def interrupted(note: str | None) -> str:
    """The migration that was begun and never ended by a ``note``; empty where there is none."""
    return note.removeprefix(UNDER_WAY) if note and note.startswith(UNDER_WAY) else ""
