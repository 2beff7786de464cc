"""A config store in Redis (6.2 or later, or what speaks its protocol)."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import resources
from itertools import chain
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.connection import SSLConnection, UnixDomainSocketConnection, parse_url
from redis.retry import Retry

from tenant_router.config_store.backends import redis_wire as wire
from tenant_router.config_store.base import ConfigStore, Event, Head, IndexEntry, Op, StoredRecord, check_ops
from tenant_router.exceptions import Conflict, EpochChanged, StoreError, StoreUnavailable

LOG_LENGTH = 20_000  # events; Redis trims the log in blocks of 100
TIMEOUT = 3.0  # seconds that one answer may take
CONNECT_TIMEOUT = 1.0  # seconds
HEALTH_INTERVAL = 15.0  # seconds of silence after which a connection is asked whether it lives
_PAGE = 500  # records of one HMGET
_SLICE = 1.0  # seconds; the longest that a waiting reader does not look whether the store was closed
_FIXED = {"decode_responses": False, "protocol": 2, "single_connection_client": False}
_NUMBER = re.compile(rb"[0-9]{1,16}")
_SCRIPT = resources.files(__package__).joinpath("commit.lua").read_text("utf-8")


class RedisStore(ConfigStore):
    """Keeps the tenants of ``service`` in Redis.

    ``location`` has ``HOST``, ``PORT``, ``DB``, ``USERNAME``, ``PASSWORD``, or a ``URL``
    (``redis://``, ``rediss://``, ``unix://``); ``client_kwargs`` are arguments of
    ``redis.Redis`` and win over it. The log keeps about ``log_length`` events. Nothing is
    connected before the first use. Raises ``ValueError`` for a location that is wrong.
    """

    def __init__(
        self,
        service: str,
        location: Mapping[str, Any] | None = None,
        client_kwargs: Mapping[str, Any] | None = None,
        log_length: int = LOG_LENGTH,
    ) -> None:
        self._prefix = f"{{tr:{service}}}"
        self._meta, self._docs, self._idx, self._log_key, self._channel = (
            f"{self._prefix}:{name}" for name in ("meta", "docs", "idx", "log", "events")
        )
        self._options = _options(location or {}, client_kwargs or {})
        self._log_length = log_length
        self._closed = self._listening = False
        self._owed = False  # whether the log is known to hold something that was not read yet
        self._heard = 0.0  # time.monotonic() when the subscription last said something
        self._connect()

    def head(self) -> Head:
        """Where the history stands."""
        with self._guard():
            epoch, rev, chained = self._client.hmget(self._meta, "epoch", "rev", "chain")
            if epoch is None:
                raise EpochChanged(f"the config store at {self._where} is empty: no configuration was ever written")
            if chained is None or not _NUMBER.fullmatch(rev or b""):
                raise self._damaged("its revision is unreadable")
            return Head(epoch.decode(), int(rev), chained.decode())

    def scan(self, cursor: str, limit: int) -> tuple[str, list[IndexEntry]]:
        """One page of the index; Redis returns a small index whole whatever ``limit`` says."""
        with self._guard():
            following, page = self._client.hscan(self._idx, cursor or "0", count=limit)
            return str(following) if int(following) else "", wire.index_entries(page.items())

    def get_many(self, tenant_ids: Sequence[str]) -> dict[str, StoredRecord]:
        """The records of those of ``tenant_ids`` that exist and are not deleted."""
        found: list[tuple[bytes, bytes]] = []
        for start in range(0, len(tenant_ids), _PAGE):
            page = tenant_ids[start : start + _PAGE]
            with self._guard():
                values = self._client.hmget(self._docs, page)
                found += [(key.encode(), value) for key, value in zip(page, values, strict=True) if value is not None]
        return wire.records(found)

    def commit(self, ops: Sequence[Op], *, request_id: str, epoch: str | None = None) -> int:
        """Apply all of ``ops`` in order, or nothing, and return the last one's revision."""
        check_ops(ops)
        keys = (self._meta, self._docs, self._idx, self._log_key, f"{self._prefix}:req:{request_id}")
        args = [self._channel, self._log_length, uuid.uuid4().hex, "" if epoch is None else epoch]
        args += chain.from_iterable(wire.arguments(op) for op in ops)
        with self._guard():
            try:
                outcome, *details = self._script(keys, args)
            except redis.ConnectionError:  # the answer may be lost or never have been: the request id tells
                self._check_open()
                outcome, *details = self._script(keys, args)
            return self._result(outcome, details, ops)

    def _result(self, outcome: bytes, details: list[Any], ops: Sequence[Op]) -> int:
        if outcome == b"OK":
            return int(details[0])
        if outcome == b"CONFLICT":
            refused = ops[details[0]]
            raise Conflict(refused.tenant_id, refused.expect or 0, details[1])
        if outcome == b"EPOCH":
            raise EpochChanged(f"the config store at {self._where} has another history now: nothing was written")
        raise self._damaged(details[0].decode())

    def _announced(self, rev: int, wait: float) -> bool:
        with self._guard():
            try:
                self._owed = self._owed or self._pushed(rev, wait)
            except BaseException:
                self._listening = False
                self._push.disconnect()
                raise
        return self._owed

    def _pushed(self, rev: int, wait: float) -> bool:
        if not self._listening:
            if wait > 0:
                self._subscribe()
            return True  # what was published before the subscription is found by reading only
        deadline = time.monotonic() + wait
        if wait > 0:
            self._probe()
        while True:
            left = deadline - time.monotonic()
            if self._push.can_read(max(0.0, min(left, _SLICE))):
                self._heard = time.monotonic()
                if wire.revision(self._push.read_response()) > rev:
                    return True
            elif left <= _SLICE:
                return False
            # a connection that close() takes away right here would be opened anew by can_read
            self._check_open()

    def _subscribe(self) -> None:
        self._push.connect()
        self._push.send_command("SUBSCRIBE", self._channel)
        self._push.read_response()
        self._heard, self._listening = time.monotonic(), True
        self._check_open()

    def _probe(self) -> None:
        """Make sure that a silent subscription is silent because nothing happened."""
        if time.monotonic() - self._heard > HEALTH_INTERVAL:
            self._push.send_command("PING", check_health=False)
            if not self._push.can_read(TIMEOUT):
                raise redis.TimeoutError("the subscription does not answer")

    def _log(self, rev: int, limit: int) -> list[Event]:
        with self._guard():
            entries = self._client.xrange(self._log_key, min=f"{rev + 1}-0", count=limit + 1)
            self._owed = len(entries) > limit
            return wire.events(entries[:limit])

    keeps_claims = True

    def claim(self, name: str, member: str, seconds: float) -> bool:
        """Whether ``member`` was not yet in the set ``name``, which lives for ``seconds`` more."""
        key = f"{self._prefix}:claims:{name}"
        with self._guard():
            added, _ = self._client.pipeline().sadd(key, member).pexpire(key, int(seconds * 1000)).execute()
            return bool(added)

    def claimed(self, name: str) -> set[str]:
        """The members of a set."""
        with self._guard():
            return {member.decode() for member in self._client.smembers(f"{self._prefix}:claims:{name}")}

    def release(self, name: str, member: str) -> None:
        """Take ``member`` out of the set."""
        with self._guard():
            self._client.srem(f"{self._prefix}:claims:{name}", member)

    def close(self) -> None:
        """Close all connections and wake a blocked ``changes``; idempotent."""
        self._closed = True
        self._push.disconnect()
        self._client.connection_pool.disconnect()

    def reset_after_fork(self) -> None:
        """In a forked child: forget the parent's sockets without disturbing the parent."""
        # redis-py's Connection.disconnect(), which its __del__ calls as well, compares os.getpid()
        # with the pid that made the connection: in a child it closes the child's descriptor without
        # shutdown(2), and it sends nothing. The old pool is dropped and not asked, since another
        # thread of the parent may have held its lock.
        self._push.disconnect()
        self._connect()

    def _connect(self) -> None:
        self._client = _client(self._options)
        self._script = self._client.register_script(_SCRIPT)
        pool = self._client.connection_pool
        self._push = pool.connection_class(**pool.connection_kwargs)
        self._listening = self._owed = False
        options = pool.connection_kwargs
        self._where = options.get("path") or f"{options.get('host')}:{options.get('port')}"

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
            raise wire.translated(error, self._where, self._prefix) from None
        except Exception as error:  # redis-py parses what the peer sends, and trips over peers that are no Redis
            self._check_open()
            raise StoreUnavailable(f"no understanding with {self._where}: {type(error).__name__}") from error

    def _check_open(self) -> None:
        if self._closed:
            raise StoreUnavailable("this RedisStore was closed")

    def _damaged(self, why: str) -> StoreUnavailable:
        return StoreUnavailable(
            f"the config store at {self._where} is damaged ({why}): restore it, or delete the keys {self._prefix}:* "
            "and load the configuration again"
        )


def _options(location: Mapping[str, Any], client_kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments for ``redis.Redis``."""
    defaults = {
        "socket_connect_timeout": CONNECT_TIMEOUT,
        "socket_timeout": TIMEOUT,
        "socket_keepalive": True,
        "health_check_interval": HEALTH_INTERVAL,
        "retry": Retry(NoBackoff(), 0),
    }
    chosen = {**_url_options(location.get("URL")), **wire.named_options(location), **client_kwargs}
    for name, value in _FIXED.items():
        if chosen.setdefault(name, value) != value:
            raise ValueError(f"the config store's client depends on {name}={value}; leave this option out")
    return {**defaults, **chosen}


def _client(options: Mapping[str, Any]) -> Any:
    try:
        client: Any = redis.Redis(**options)
    except TypeError as error:
        raise ValueError(f"the config store's client does not accept its options: {error}") from None
    # or a collected client would disconnect its pool, under the pool's lock, in a forked child too
    client.auto_close_connection_pool = False
    return client


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
