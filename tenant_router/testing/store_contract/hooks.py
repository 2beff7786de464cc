"""What a backend's test class provides to the contract's tests: fixtures, limits, outages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager

import pytest

from tenant_router.config_store.base import ConfigStore


class Hooks:
    """What the tests ask of the class that is derived from them, and how patient they are."""

    INDEX_SIZE = 100_000
    """Tenants in the test of a large index."""
    CAS_ROUNDS = 1_000
    """Increments per writer in the test of compare-and-set."""
    PUSH = 0.1
    """Seconds within which a waiting reader hears of a commit."""
    TIMEOUT = 5.0
    """Seconds within which each verb gives up when the store does not answer."""

    @pytest.fixture
    def store(self) -> Iterator[ConfigStore]:
        """An empty store."""
        raise NotImplementedError

    def reopen(self, store: ConfigStore) -> ConfigStore:
        """Another object on the data of ``store``, as another process would open it."""
        raise NotImplementedError

    def wipe(self, store: ConfigStore) -> None:
        """Remove all data of ``store`` behind its back."""
        raise NotImplementedError

    def short_log(self) -> ConfigStore:
        """An empty store whose log cannot hold 1,000 events."""
        raise NotImplementedError

    def outage(self, store: ConfigStore) -> AbstractContextManager[None]:
        """A block within which the store does not answer."""
        pytest.skip("this backend cannot be unreachable")

    def denied(self, store: ConfigStore) -> tuple[ConfigStore, str]:
        """A store with a wrong credential, and that credential."""
        pytest.skip("this backend asks for no credentials")
