import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tenant_router.config_store.backends.memory import MemoryStore
from tenant_router.config_store.backends.redis import RedisStore
from tenant_router.config_store.base import ConfigStore
from tenant_router.testing.store_contract import StoreContract
from tenant_router.testing.store_contract.tools import in_child, put
from tests.servers import RedisServer


class TestMemoryStore(StoreContract):
    @pytest.fixture
    def store(self) -> Iterator[ConfigStore]:
        self.name = uuid.uuid4().hex
        store = MemoryStore("shop", {"NAME": self.name})
        yield store
        store.close()

    def reopen(self, store: ConfigStore) -> MemoryStore:
        return MemoryStore("shop", name=self.name)

    def wipe(self, store: ConfigStore) -> None:
        self.reopen(store).clear()

    def short_log(self) -> ConfigStore:
        return MemoryStore(log_length=10)

    def test_stores_are_apart_unless_they_share_service_and_name(self, store: ConfigStore) -> None:
        put(store, "a")
        for other in (MemoryStore("shop"), MemoryStore("crm", name=self.name), MemoryStore("shop", name="x")):
            assert other.scan("", 10) == ("", {})

    def test_a_child_does_not_wait_for_a_lock_that_a_thread_of_the_parent_held(self) -> None:
        store = MemoryStore()
        put(store, "a")
        held, done = threading.Event(), threading.Event()

        def hold() -> None:
            with store._opened():
                held.set()
                done.wait()

        def use() -> None:
            store.reset_after_fork()
            assert store.head().rev == 1

        thread = threading.Thread(target=hold)
        thread.start()
        held.wait()
        try:
            assert in_child(use) == 0
        finally:
            done.set()
            thread.join()

    @pytest.mark.parametrize("arguments", [{"location": {"HOST": "x"}}, {"client_kwargs": {"ssl": True}}])
    def test_an_option_of_another_backend_is_refused(self, arguments: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match=r"HOST|ssl"):
            MemoryStore("shop", **arguments)


class TestRedisStore(StoreContract):
    @pytest.fixture(autouse=True)
    def _server(self, redis_server: RedisServer) -> None:
        self.server = redis_server
        self.service = uuid.uuid4().hex

    @pytest.fixture
    def store(self) -> Iterator[ConfigStore]:
        store = self._open()
        yield store
        store.close()
        self._delete_keys()

    def _open(self, **arguments: Any) -> RedisStore:
        return RedisStore(self.service, {"URL": f"unix://{self.server.socket}"}, **arguments)

    def _delete_keys(self) -> None:
        client = self.server.client()
        client.delete(*client.scan_iter(f"{{tr:{self.service}}}:*", count=1000), "none")

    def reopen(self, store: ConfigStore) -> ConfigStore:
        return self._open()

    def wipe(self, store: ConfigStore) -> None:
        self._delete_keys()

    def short_log(self) -> ConfigStore:
        return self._open(log_length=10)

    @contextmanager
    def outage(self, store: ConfigStore) -> Iterator[None]:
        self.server.pause()
        try:
            yield
        finally:
            self.server.resume()

    def denied(self, store: ConfigStore) -> tuple[ConfigStore, str]:
        secret = "canary-password"
        credentials = {"USERNAME": "nobody", "PASSWORD": secret}
        return RedisStore(self.service, {"URL": f"unix://{self.server.socket}", **credentials}), secret
