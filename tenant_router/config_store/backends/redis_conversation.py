"""The conversation of the Redis backend with its server: one client, its scripts, and the contract's errors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import redis

from tenant_router.config_store.backends import redis_wire as wire
from tenant_router.config_store.backends.redis_clients import ClientFactory
from tenant_router.config_store.backends.redis_subscription import Subscription
from tenant_router.config_store.base import ConfigStore
from tenant_router.exceptions import StoreError, StoreUnavailable


class RedisConversation(ConfigStore):
    """A store's connections: made at the first use, dropped in a forked child, closed once and for all.

    Raises ``ValueError`` for a location or options that are wrong.
    """

    def __init__(self, service: str, location: Mapping[str, Any], client_kwargs: Mapping[str, Any]) -> None:
        self._prefix = f"{{tr:{service}}}"
        self._meta, self._channel = f"{self._prefix}:meta", f"{self._prefix}:events"
        self._clients = ClientFactory(location, client_kwargs)
        self._where = self._clients.where
        self._closed = False
        self._subscription = Subscription(self._clients, self._channel, self._meta, self._check_open)
        self._forget()

    def close(self) -> None:
        """Close all connections and wake a blocked ``changes``; idempotent."""
        self._closed = True
        self._subscription.disconnect()
        client = self.__dict__.get("_client")  # which may never have been needed
        if client is not None:
            self._clients.release(client)

    def reset_after_fork(self) -> None:
        """In a forked child: forget the parent's sockets without disturbing the parent."""
        # The old pool is dropped and not asked, since another thread of the parent may have held its lock.
        self._subscription.reset_after_fork()
        self._forget()

    def _forget(self) -> None:
        self.__dict__.pop("_client", None)
        self._scripts: dict[str, Any] = {}

    @cached_property
    def _client(self) -> Any:
        return self._clients.make()

    def _run(self, script: str, keys: Sequence[str], args: Sequence[Any], client: Any = None) -> Any:
        registered = self._scripts.get(script)
        if registered is None:
            registered = self._scripts[script] = self._client.register_script(script)
        return registered(keys, args, client)

    @contextmanager
    def _guard(self) -> Iterator[None]:
        """Let nothing but the contract's errors out of a conversation with Redis."""
        self._check_open()
        try:
            yield
        except StoreError:
            raise
        except (redis.RedisError, OSError) as error:
            self._check_open()
            if isinstance(error, redis.ConnectionError | redis.TimeoutError | OSError):
                self._distrust()
            raise wire.translate_error(error, self._where, self._prefix) from None
        except Exception as error:  # redis-py parses what the peer sends, and trips over peers that are no Redis
            self._check_open()
            raise StoreUnavailable(f"no understanding with {self._where}: {type(error).__name__}") from error

    def _distrust(self) -> None:
        """One connection is dead: those that nobody uses now may be, too, and who took one would wait for it."""
        pool = getattr(
            self.__dict__.get("_client"), "connection_pool", None
        )  # a cluster's client has one per node, and sees to them
        if pool is not None:
            pool.disconnect(inuse_connections=False)

    def _check_open(self) -> None:
        if self._closed:
            raise StoreUnavailable("this RedisStore was closed")
