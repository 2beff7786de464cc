"""Clients of Redis as people run it: one server, behind Sentinels, or a cluster."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.connection import SSLConnection, UnixDomainSocketConnection, parse_url
from redis.retry import Retry
from redis.sentinel import Sentinel

from tenant_router.config_store.backends import redis_wire as wire
from tenant_router.secrets import masked

TIMEOUT = 3.0  # seconds that one answer may take
CONNECT_TIMEOUT = 1.0  # seconds
HEALTH_INTERVAL = 15.0  # seconds of silence after which a connection is asked whether it lives
# untyped in the client's library
_node: Callable[..., Any] = ClusterNode
_sentinel: Callable[..., Any] = Sentinel
_FIXED = {"decode_responses": False, "protocol": 2, "single_connection_client": False}


class ClientFactory:
    """Makes Redis clients for a ``LOCATION``. Nothing is connected before ``make``, and by that for a cluster only.

    Raises ``ValueError`` for a location or options that are wrong.
    """

    def __init__(self, location: Mapping[str, Any], client_kwargs: Mapping[str, Any]) -> None:
        self._sentinels = _addresses(location, "SENTINELS")
        self._cluster = _addresses(location, "CLUSTER")
        self._master = location.get("MASTER", "mymaster")
        self._sentinel_kwargs = location.get("SENTINEL_KWARGS", {})
        self.is_cluster = bool(self._cluster)
        many = bool(self._sentinels) + bool(self._cluster)
        if many > 1 or (many and location.keys() & {"HOST", "PORT", "URL"}):
            raise ValueError("LOCATION has more than one of HOST or URL, SENTINELS and CLUSTER; give one of them")
        own = {name: value for name, value in location.items() if name not in wire.MULTI_SERVER_KEYS}
        self._options = _options(own, client_kwargs)
        # it connects to nothing and says which options are wrong; the first who needs a client takes it
        self._checked = [] if self.is_cluster else [self._new()]
        self.where = self._where()

    def make(self) -> Any:
        """A client with a pool of its own."""
        try:
            return self._checked.pop()
        except IndexError:
            return self._new()

    def _new(self) -> Any:
        try:
            client = self._made()
        except TypeError as error:
            raise ValueError(f"the config store's client does not accept its options: {error}") from None
        # or a collected client would disconnect its pool, under the pool's lock, in a forked child too
        client.auto_close_connection_pool = False
        return client

    def _made(self) -> Any:
        if not self._sentinels and not self._cluster:
            return redis.Redis(**self._options)
        several = {name: value for name, value in self._options.items() if name != "single_connection_client"}
        if self._cluster:
            # the whole store is in one slot, so a part of the cluster that is away need not concern us
            nodes = [_node(host, port) for host, port in self._cluster]
            return RedisCluster(startup_nodes=nodes, require_full_coverage=False, **several)
        timeouts = {name: several[name] for name in ("socket_connect_timeout", "socket_timeout")}
        asked = _sentinel(self._sentinels, sentinel_kwargs={**timeouts, **self._sentinel_kwargs})
        return asked.master_for(self._master, **several)

    def subscriber(self, client: Any, key: str) -> Any:
        """A connection, not connected yet, to the server that publishes for ``key``."""
        if self.is_cluster:
            client = client.get_redis_connection(client.get_node_from_key(key))
        pool = client.connection_pool
        return pool.connection_class(**pool.connection_kwargs)

    def release(self, client: Any) -> None:
        """Close all connections of a client that :meth:`make` made."""
        if self.is_cluster:
            found = [client.get_redis_connection(node) for node in client.get_nodes()]
        else:
            found = [client, *getattr(getattr(client.connection_pool, "sentinel_manager", None), "sentinels", ())]
        for one in found:
            one.connection_pool.disconnect()

    def _where(self) -> str:
        """How messages call the location: without credentials."""
        if self._sentinels:
            return f"master {self._master!r} of the sentinels"
        if self._cluster:
            return "the cluster of " + ", ".join(f"{host}:{port}" for host, port in self._cluster)
        options = self._checked[0].connection_pool.connection_kwargs
        return str(options.get("path") or f"{options.get('host')}:{options.get('port')}")


def _addresses(location: Mapping[str, Any], name: str) -> list[tuple[str, int]]:
    given = location.get(name) or []
    if not isinstance(given, Sequence) or isinstance(given, str):
        raise ValueError(f"LOCATION[{name!r}] is a list of 'host:port'")
    found = []
    for address in given:
        host, _, port = address.rpartition(":") if isinstance(address, str) else ("", "", "")
        if not host or not port.isdigit():
            raise ValueError(f"LOCATION[{name!r}] has {address!r}, which is no 'host:port'")
        found.append((host, int(port)))
    return found


def _options(location: Mapping[str, Any], client_kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments for ``redis.Redis``."""
    defaults = {
        "socket_connect_timeout": CONNECT_TIMEOUT,
        "socket_timeout": TIMEOUT,
        "socket_keepalive": True,
        "health_check_interval": HEALTH_INTERVAL,
        "retry": Retry(NoBackoff(), 0),
    }
    chosen = masked({**_url_options(location.get("URL")), **wire.client_options(location), **client_kwargs})
    for name, value in _FIXED.items():
        if chosen.setdefault(name, value) != value:
            raise ValueError(f"the config store's client depends on {name}={value}; leave this option out")
    return {**defaults, **chosen}


def _url_options(url: str | None) -> dict[str, Any]:
    if url is None:
        return {}
    parse: Callable[[str], dict[str, Any]] = parse_url
    try:
        options = parse(url)
        kind = options.pop("connection_class", None)
        if kind is UnixDomainSocketConnection:
            options["unix_socket_path"] = options.pop("path")
    except (AttributeError, KeyError, TypeError, ValueError):  # whose messages may quote the URL, password included
        raise ValueError("LOCATION['URL'] is no valid redis://, rediss:// or unix:// URL") from None
    return {**options, "ssl": True} if kind is SSLConnection else options
