"""A MongoDB client that is open: how it is made, what the budget counts, and how it is closed."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Protocol

from pymongo import MongoClient

from tenant_router.orm_backends.mongo.pool import TenantPool

logger = logging.getLogger(__name__)


class Lending(Protocol):
    """The cluster of a client, which lends it to tenants."""

    @property
    def is_wanted(self) -> bool:
        """Whether a tenant's current record leads to it."""

    def let_go(self, opened: OpenClient) -> None:
        """It is its client no longer; the budget's lock is held."""


class OpenClient:
    """A client that is open: what the budget counts. ``users``: uses by living units, of all its tenants."""

    __slots__ = ("client", "cluster", "counted", "users")

    def __init__(self, client: MongoClient, cluster: Lending) -> None:
        self.client, self.cluster = client, cluster
        self.counted = True
        self.users = 0

    def reclaim(self) -> bool:
        """Take it from its cluster, which opens another one when it is used next; the budget's lock is held.

        ``False`` while somebody uses it, be it a thread that goes on after its unit has ended.
        """
        if self.users or self._is_busy():
            return False
        self.cluster.let_go(self)
        return True

    def close(self) -> None:
        """Close its sockets and end its threads, without a word to the servers: nobody waits for one that is gone.

        Sessions and cursors that are left there end by the servers' own time limits.
        """
        try:
            self.client._topology.pop_all_sessions()  # or close() would send endSessions, and what cursors are left
            self.client._MongoClient__kill_cursors_queue.clear()
            self.client.close()
        except Exception as error:  # nobody uses it any more
            logger.info("closing a MongoDB client: %s", type(error).__name__)

    def _is_busy(self) -> bool:
        servers = [*self.client._topology._servers.values()]
        return any(server.pool.active_sockets for server in servers)


def make_client(arguments: Mapping[str, Any]) -> MongoClient:
    """A new client. No connection yet; only ``mongodb+srv`` asks the DNS, here.

    Each of its two look-ups ends after ``connectTimeoutMS`` (pymongo/mongo_client.py hands it to srv_resolver.py as
    the ``lifetime`` of a resolution).
    """
    return MongoClient(connect=False, _pool_class=TenantPool, **arguments)
