"""A config store in Redis (6.2 or later, or what speaks its protocol)."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import redis

from tenant_router.config_store.backends import redis_wire as wire
from tenant_router.config_store.backends.redis_clients import ClientFactory
from tenant_router.config_store.backends.redis_subscription import Subscription
from tenant_router.config_store.base import (
    DELETED,
    FORMAT,
    INDEX_PAGE,
    ConfigStore,
    Event,
    Head,
    Lease,
    Op,
    StoredRecord,
    check_ops,
    check_reader,
    packed_state,
    stamp,
)
from tenant_router.exceptions import Conflict, EpochChanged, StoreError, StoreUnavailable

logger = logging.getLogger(__name__)

LOG_LENGTH = 20_000  # events; Redis trims the log in blocks of 100
_PAGE = 500  # records of one HMGET
_DIGITS = 16  # of a revision
_CONFIRM = 200  # milliseconds that a commit waits for what DURABILITY asks for
_COMMIT, _LEASE = (Path(__file__).with_name(name).read_text("utf-8") for name in ("commit.lua", "lease.lua"))
_LEASES = """
local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
return {now, redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES'), redis.call('HGETALL', KEYS[2])}
"""
# what was created again since it was looked at stays, and so does the last entry: an index without any is a lost one
_PURGE = """
local count = 0
for i = 1, #ARGV, 2 do
  if redis.call('HGET', KEYS[1], ARGV[i]) == ARGV[i + 1] and redis.call('HLEN', KEYS[1]) > 1 then
    count = count + redis.call('HDEL', KEYS[1], ARGV[i])
  end
end
return count
"""
_CLAIM = """
local added = redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
if added == 0 and ARGV[3] ~= '' and redis.call('HGET', KEYS[1], ARGV[1]) == ARGV[3] then
  return 1
end
return added
"""


class RedisStore(ConfigStore):
    """Keeps the tenants of ``service`` in Redis.

    ``location`` has ``HOST``, ``PORT``, ``DB``, ``USERNAME``, ``PASSWORD``, or a ``URL``
    (``redis://``, ``rediss://``, ``unix://``), or ``SENTINELS`` (``["host:port", ...]``) with
    ``MASTER``, or ``CLUSTER`` (``["host:port", ...]``); ``client_kwargs`` are arguments of
    ``redis.Redis`` and win over it. The log keeps about ``log_length`` events. ``durability``
    is ``"default"``, ``"wait:1"`` (a replica has each commit) or ``"waitaof"`` (its disk has);
    a commit that is not confirmed in time is logged and stays. Nothing is connected before the
    first use. Raises ``ValueError`` for a location that is wrong.
    """

    def __init__(
        self,
        service: str,
        location: Mapping[str, Any] | None = None,
        client_kwargs: Mapping[str, Any] | None = None,
        log_length: int = LOG_LENGTH,
        durability: str = "default",
    ) -> None:
        self._service, self._location, self._client_kwargs = service, location or {}, client_kwargs or {}
        self._prefix = f"{{tr:{service}}}"
        self._meta, self._docs, self._idx, self._log_key, self._channel, self._fleet, self._said = (
            f"{self._prefix}:{name}" for name in ("meta", "docs", "idx", "log", "events", "fleet", "said")
        )
        self._clients = ClientFactory(self._location, self._client_kwargs)
        self._where = self._clients.where
        self._log_length, self._durability = log_length, durability
        self._closed = self._more_to_read = False
        self._subscription = Subscription(self._clients, self._channel, self._meta, self._check_open)
        self._forget()

    def head(self) -> Head:
        """Where the history stands."""
        with self._guard():
            epoch, rev, chained, min_reader = self._client.hmget(self._meta, "epoch", "rev", "chain", "min_reader")
            if epoch is None:
                raise EpochChanged(f"the config store at {self._where} is empty: no configuration was ever written")
            if chained is None or not (rev or b"").isdigit() or len(rev) > _DIGITS:
                raise self._damaged("its revision is unreadable")
            check_reader(int(min_reader) if (min_reader or b"").isdigit() else 0)
            return Head(epoch.decode(), int(rev), chained.decode())

    def scan(self, cursor: str, limit: int) -> tuple[str, dict[str, str]]:
        """One page of the index; Redis returns a small index whole whatever ``limit`` says."""
        with self._guard():
            following, page = self._client.hscan(self._idx, cursor or "0", count=limit)
            return str(following) if int(following) else "", wire.index_entries(page)

    def get_many(self, tenant_ids: Sequence[str]) -> dict[str, StoredRecord]:
        """The records of those of ``tenant_ids`` that exist and are not deleted."""
        found: dict[str, StoredRecord] = {}
        for start in range(0, len(tenant_ids), _PAGE):
            found |= wire.records(self._documents(tenant_ids[start : start + _PAGE]))
        return found

    def _documents(self, tenant_ids: Sequence[str]) -> list[tuple[bytes, bytes]]:
        with self._guard():
            values = self._client.hmget(self._docs, tenant_ids)
        return [(key.encode(), value) for key, value in zip(tenant_ids, values, strict=True) if value is not None]

    def commit(self, ops: Sequence[Op], *, request_id: str, epoch: str | None = None) -> int:
        """Apply all of ``ops`` in order, or nothing, and return the last one's revision."""
        check_ops(ops)
        keys = (self._meta, self._docs, self._idx, self._log_key, f"{self._prefix}:req:{request_id}")
        args = [self._channel, self._log_length, FORMAT, uuid.uuid4().hex, "" if epoch is None else epoch]
        args += chain.from_iterable(wire.commit_arguments(op) for op in ops)
        with self._guard():
            try:
                outcome, *details = self._commit(keys, args)
            except redis.ConnectionError:  # the answer may be lost or never have been: the request id tells
                self._check_open()
                outcome, *details = self._commit(keys, args)
            return self._result(outcome, details, ops)

    def _commit(self, keys: Sequence[str], args: Sequence[Any]) -> Any:
        if self._durability == "default":
            return self._run(_COMMIT, keys, args)
        # one connection: the server confirms what was written through the one that asks
        with self._client.client() as client:
            reply = self._run(_COMMIT, keys, args, client)
            self._confirm(client, reply)
            return reply

    def _confirm(self, client: Any, reply: Any) -> None:
        if reply[0] != b"OK":
            return
        try:
            if self._durability == "waitaof":
                confirmed = client.waitaof(1, 0, _CONFIRM)[0]
            else:
                confirmed = client.wait(int(self._durability.removeprefix("wait:")), _CONFIRM)
        except redis.RedisError as error:
            confirmed = 0
            logger.warning("%s cannot confirm commits as %r asks: %s", self._where, self._durability, error)
        if not confirmed:
            logger.warning("revision %d is written, and not confirmed as %r asks", int(reply[1]), self._durability)

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
                self._more_to_read = self._more_to_read or self._subscription.wait_for_push(self._client, rev, wait)
            except BaseException:
                self._subscription.disconnect()
                raise
        return self._more_to_read

    def _log(self, rev: int, limit: int) -> list[Event]:
        named = self._subscription.pop_pushed_tenant()
        with self._guard():
            conversation = self._client.pipeline(transaction=False)
            conversation.xrange(self._log_key, min=f"{rev + 1}-0", count=limit + 1)
            if named and self.read_along(named):
                conversation.hget(self._docs, named)
            entries, *values = conversation.execute()
            self._more_to_read = len(entries) > limit
            along = wire.records((named.encode(), value) for value in values if value is not None)
            return [event._replace(record=along.get(event.tenant_id)) for event in wire.events(entries[:limit])]

    keeps_house = True

    def purge(self, older_than: float) -> int:
        """Forget the tombstones that are older than so many seconds by the server's clock; returns how many."""
        with self._guard():
            seconds, microseconds = self._client.time()
        before, cursor, count = seconds * 1000 + microseconds // 1000 - older_than * 1000, "", 0
        while True:
            cursor, page = self.scan(cursor, INDEX_PAGE)
            old = [pair for pair in page.items() if packed_state(pair[1]) == DELETED and 0 < stamp(pair[1]).at < before]
            if old:
                with self._guard():
                    count += int(self._run(_PURGE, [self._idx], list(chain.from_iterable(old))))
            if not cursor:
                return count

    def insist(self, min_reader: int) -> None:
        """Refuse readers of an older format."""
        with self._guard():
            self._client.hset(self._meta, "min_reader", min_reader)

    keeps_claims = True

    def claim(self, name: str, member: str, seconds: float, by: str = "") -> bool:
        """Whether ``member`` was not in the set ``name``, or is by the same; the set lives for ``seconds`` more."""
        key = f"{self._prefix}:claims:{name}"
        with self._guard():
            return bool(self._run(_CLAIM, [key], [member, int(seconds * 1000), by]))

    def claimed(self, name: str) -> set[str]:
        """The members of a set."""
        with self._guard():
            return {member.decode() for member in self._client.hkeys(f"{self._prefix}:claims:{name}")}

    def release(self, name: str, member: str) -> None:
        """Take ``member`` out of the set."""
        with self._guard():
            self._client.hdel(f"{self._prefix}:claims:{name}", member)

    keeps_leases = True

    def lease(self, name: str, value: str, seconds: float) -> int:
        """Say ``value`` under ``name`` for ``seconds``; returns how many leases there are."""
        with self._guard():
            return int(self._run(_LEASE, [self._fleet, self._said], [name, int(seconds * 1000), value]))

    def leases(self) -> dict[str, Lease]:
        """What was said and is not forgotten yet."""
        with self._guard():
            now, ends, said = self._run(_LEASES, [self._fleet, self._said], [])
            return wire.leases(int(now), ends, said)

    @contextmanager
    def hurried(self, seconds: float) -> Iterator[ConfigStore]:
        """A client of its own, whose answers take ``seconds`` at most, and which is closed afterwards."""
        brief = {**self._client_kwargs, "socket_timeout": seconds, "socket_connect_timeout": seconds}
        store = RedisStore(self._service, self._location, brief, self._log_length, self._durability)
        try:
            yield store
        finally:
            store.close()

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
        self._more_to_read = False  # whether the log is known to hold something that was not read yet

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

    def _damaged(self, why: str) -> StoreUnavailable:
        return StoreUnavailable(
            f"the config store at {self._where} is damaged ({why}): restore it, or delete the keys {self._prefix}:* "
            "and load the configuration again"
        )
