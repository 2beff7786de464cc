"""A store for somebody who has little time: what would begin too late is not asked."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Protocol

from tenant_router.config_store.base import INDEX_PAGE, ConfigStore, Event, Head, StoredRecord
from tenant_router.exceptions import StoreUnavailable


class Reads(Protocol):
    """The verbs of a ``ConfigStore`` that make a process equal to it."""

    keeps_claims: bool

    def head(self) -> Head:
        """See ``ConfigStore.head``."""

    def index(self) -> dict[str, str]:
        """See ``ConfigStore.index``."""

    def get_many(self, tenant_ids: Sequence[str]) -> Mapping[str, StoredRecord]:
        """See ``ConfigStore.get_many``."""

    def changes(self, after: Head, limit: int) -> list[Event]:
        """See ``ConfigStore.changes``."""

    def chain_at(self, rev: int) -> str | None:
        """See ``ConfigStore.chain_at``."""

    def claimed(self, name: str) -> set[str]:
        """See ``ConfigStore.claimed``."""


class Budget:
    """The reading verbs of ``store``, for ``seconds``; ``StoreUnavailable`` afterwards."""

    def __init__(self, store: ConfigStore, seconds: float) -> None:
        self._store, self._seconds, self._ends = store, seconds, time.monotonic() + seconds
        self.keeps_claims = store.keeps_claims

    def head(self) -> Head:
        """See ``ConfigStore.head``."""
        return self._in_time().head()

    def index(self) -> dict[str, str]:
        """See ``ConfigStore.index``; the time is looked at before each page."""
        found: dict[str, str] = {}
        cursor = ""
        while True:
            cursor, page = self._in_time().scan(cursor, INDEX_PAGE)
            found.update(page)
            if not cursor:
                return found

    def get_many(self, tenant_ids: Sequence[str]) -> Mapping[str, StoredRecord]:
        """See ``ConfigStore.get_many``."""
        return self._in_time().get_many(tenant_ids)

    def changes(self, after: Head, limit: int) -> list[Event]:
        """See ``ConfigStore.changes``."""
        return self._in_time().changes(after, limit)

    def chain_at(self, rev: int) -> str | None:
        """See ``ConfigStore.chain_at``."""
        return self._in_time().chain_at(rev)

    def claimed(self, name: str) -> set[str]:
        """See ``ConfigStore.claimed``."""
        return self._in_time().claimed(name)

    def _in_time(self) -> ConfigStore:
        if time.monotonic() >= self._ends:
            raise StoreUnavailable(f"not all could be read within {self._seconds:g} s")
        return self._store
