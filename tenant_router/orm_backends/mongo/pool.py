"""The connections of a shared client: each is one tenant's while it is in use, and nobody gets all of them.

Relied on, all of PyMongo 3.13; tests/integration/test_pymongo_facts.py fails when it changes:

- ``get_socket`` is called with the credentials and with a handler whose ``client`` is the one that asks; it takes the
  connection by ``_get_socket(credentials)``, and ``return_socket`` gets every one back, be it pinned for long.
- ``SocketInfo.command`` sends commands, ``write_command`` and ``legacy_write`` send bulk operations and unacknowledged
  writes, which are finished messages; queries and ``getMore`` pass ``MongoClient._run_operation``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pymongo.pool import Pool, SocketInfo

from tenant_router.orm_backends.connection_shares import ConnectionShares
from tenant_router.orm_backends.mongo import confinement

if TYPE_CHECKING:
    from tenant_router.orm_backends.mongo.bound_client import Home


_get_socket, _take, _return_socket = Pool.get_socket, Pool._get_socket, Pool.return_socket  # faster than super()
_command = SocketInfo.command


class TenantPool(Pool):  # type: ignore[misc]
    """A pool whose connections know whose they are."""

    def __init__(self, address: Any, options: Any, handshake: bool = True) -> None:
        super().__init__(address, options, handshake)
        self._shares = ConnectionShares(_or_no_limit(options.max_pool_size))
        self._patience = _or_no_limit(options.wait_queue_timeout)

    def connect(self, all_credentials: Any = None) -> Any:
        """A new connection."""
        made = super().connect(all_credentials)
        made.__class__ = TenantSocket
        return made

    def get_socket(self, all_credentials: Any, handler: Any = None) -> Any:
        """A connection for the tenant whose client asks, to be used with ``with``."""
        home = getattr(handler.client, "_tr_home", None) if handler is not None else None
        return _get_socket(self, (home, all_credentials), handler)

    def _get_socket(self, lending: tuple[Home | None, Any]) -> Any:
        home, all_credentials = lending
        if home is None:
            return _take(self, all_credentials)
        tenant_id = home.tenant_id if home.cluster.several else None
        if tenant_id is not None and not self._shares.take(tenant_id, self._patience):
            self._raise_wait_queue_timeout()
        try:
            found = _take(self, all_credentials)
        except BaseException:
            if tenant_id is not None:
                self._shares.give_back(tenant_id)
            raise
        found.home, found.lent_to = home, tenant_id
        return found

    def return_socket(self, sock_info: Any) -> None:
        """It is nobody's again."""
        tenant_id, sock_info.home, sock_info.lent_to = sock_info.lent_to, None, None
        _return_socket(self, sock_info)
        if tenant_id is not None:
            self._shares.give_back(tenant_id)


class TenantSocket(SocketInfo):  # type: ignore[misc]
    """A connection. ``home``: the database of the tenant that uses it; what it sends must stay there."""

    home: Home | None = None
    lent_to: str | None = None

    def command(self, dbname: str, spec: Any, *args: Any, **kwargs: Any) -> Any:
        """Send a command, if it stays within the tenant's database."""
        home = self.home
        if home is not None and (dbname != home.target.name or confinement.may_reach_out(spec)):
            confinement.check(home, dbname, spec)
        return _command(self, dbname, spec, *args, **kwargs)

    def write_command(self, request_id: Any, msg: Any, codec_options: Any) -> Any:
        """Send a bulk operation."""
        if self.home is not None:
            confinement.check_message(self.home, msg)
        return super().write_command(request_id, msg, codec_options)

    def legacy_write(self, request_id: Any, msg: Any, *args: Any) -> Any:
        """Send a write that nobody waits for."""
        if self.home is not None:
            confinement.check_message(self.home, msg)
        return super().legacy_write(request_id, msg, *args)


def _or_no_limit(option: float | None) -> float:
    return float("inf") if option is None else option
