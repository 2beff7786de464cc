"""The pub/sub subscription of the Redis backend: one connection that is told of each commit."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import redis

from tenant_router.config_store.backends import redis_wire as wire
from tenant_router.config_store.backends.redis_clients import HEALTH_INTERVAL, TIMEOUT, ClientFactory

SLICE = 1.0  # seconds; the longest that a waiting reader does not look whether the store was closed


class Subscription:
    """Waits for messages of ``channel``, at the server that has ``key``. ``check_open`` raises in a closed store."""

    def __init__(self, clients: ClientFactory, channel: str, key: str, check_open: Callable[[], None]) -> None:
        self._clients, self._channel, self._key, self._check_open = clients, channel, key, check_open
        self._connection: Any = None
        self._heard = 0.0  # time.monotonic() when it last said something
        self._pushed_tenant = ""  # the tenant that the latest push named
        self.listening = False

    def wait_for_push(self, client: Any, rev: int, wait: float) -> bool:
        """Wait up to ``wait`` seconds for a revision above ``rev``; whether reading may find one.

        Without ``wait`` nothing is subscribed. Raises what redis-py raises; ``disconnect`` then.
        """
        if not self.listening:
            if wait > 0:
                self._subscribe(client)
            return True  # what was published before the subscription is found by reading only
        deadline = time.monotonic() + wait
        if wait > 0:
            self._probe()
        while True:
            left = deadline - time.monotonic()
            if self._connection.can_read(max(0.0, min(left, SLICE))):
                self._heard = time.monotonic()
                revision, self._pushed_tenant = wire.parse_push(self._connection.read_response())
                if revision > rev:
                    return True
            elif left <= SLICE:
                return False
            # a connection that the store's close() takes away right here would be opened anew by can_read
            self._check_open()

    def pop_pushed_tenant(self) -> str:
        """The tenant that the latest push named, once; empty if it named none."""
        named, self._pushed_tenant = self._pushed_tenant, ""
        return named

    def disconnect(self) -> None:
        """Close the connection; the next wait opens it again."""
        self.listening = False
        if self._connection is not None:
            self._connection.disconnect()

    def reset_after_fork(self) -> None:
        """In a forked child: forget the parent's connection without disturbing the parent."""
        # redis-py's Connection.disconnect(), which its __del__ calls as well, compares os.getpid()
        # with the pid that made the connection: in a child it closes the child's descriptor without
        # shutdown(2), and it sends nothing.
        self.disconnect()
        self._connection = None

    def _subscribe(self, client: Any) -> None:
        if self._connection is None or self._clients.is_cluster:  # another node may have the slot by now
            self._connection = self._clients.subscriber(client, self._key)
        self._connection.connect()
        self._connection.send_command("SUBSCRIBE", self._channel)
        self._connection.read_response()
        self._heard, self.listening = time.monotonic(), True
        self._check_open()

    def _probe(self) -> None:
        """Make sure that a silent subscription is silent because nothing happened."""
        if time.monotonic() - self._heard > HEALTH_INTERVAL:
            self._connection.send_command("PING", check_health=False)
            if not self._connection.can_read(TIMEOUT):
                raise redis.TimeoutError("the subscription does not answer")
