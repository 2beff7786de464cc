"""A config store in Redis (6.2 or later, or what speaks its protocol)."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import redis

from tenant_router.config_store.backends import redis_wire as wire
from tenant_router.config_store.backends.redis_leases import RedisLeases
from tenant_router.config_store.base import (
    DELETED,
    FORMAT,
    INDEX_PAGE,
    ConfigStore,
    Event,
    Head,
    Op,
    StoredRecord,
    check_ops,
    check_reader,
    packed_state,
    stamp,
)
from tenant_router.exceptions import Conflict, EpochChanged, StoreUnavailable

logger = logging.getLogger(__name__)

LOG_LENGTH = 20_000  # events; Redis trims the log in blocks of 100
_PAGE = 500  # records of one HMGET
_DIGITS = 16  # of a revision
_CONFIRM = 200  # milliseconds that a commit waits for what DURABILITY asks for
_COMMIT = Path(__file__).with_name("commit.lua").read_text("utf-8")
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


class RedisStore(RedisLeases):
    """Keeps the tenants of ``service`` in Redis.

    ``location`` has ``HOST``, ``PORT``, ``DB``, ``USERNAME``, ``PASSWORD``, or a ``URL``
    (``redis://``, ``rediss://``, ``unix://``), or ``SENTINELS`` (``["host:port", ...]``) with
    ``MASTER``, or ``CLUSTER`` (``["host:port", ...]``); ``client_kwargs`` are arguments of
    ``redis.Redis`` and win over it. The log keeps about ``log_length`` events. ``durability``
    is ``"default"``, ``"wait:1"`` (a replica has each commit) or ``"waitaof"`` (its disk has);
    a commit that is not confirmed in time is logged and stays. Nothing is connected before the
    first use. Raises ``ValueError`` for a location that is wrong.
    """

    _more_to_read: bool  # whether the log is known to hold something that was not read yet

    def __init__(
        self,
        service: str,
        location: Mapping[str, Any] | None = None,
        client_kwargs: Mapping[str, Any] | None = None,
        log_length: int = LOG_LENGTH,
        durability: str = "default",
    ) -> None:
        self._service, self._location, self._client_kwargs = service, location or {}, client_kwargs or {}
        super().__init__(service, self._location, self._client_kwargs)
        self._docs, self._idx, self._log_key = (f"{self._prefix}:{name}" for name in ("docs", "idx", "log"))
        self._log_length, self._durability = log_length, durability

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
            pairs = list(zip(tenant_ids, values, strict=True))  # here: a peer that is no Redis answers anything
        return [(key.encode(), value) for key, value in pairs if value is not None]

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
            found = wire.events(entries[:limit])
            # what nobody can read is not waited for: it will be no more readable by being read at once again
            self._more_to_read = bool(found) and len(entries) > limit
            along = wire.records((named.encode(), value) for value in values if value is not None)
            return [event._replace(record=along.get(event.tenant_id)) for event in found]

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

    @contextmanager
    def hurried(self, seconds: float) -> Iterator[ConfigStore]:
        """A client of its own, whose answers take ``seconds`` at most, and which is closed afterwards."""
        brief = {**self._client_kwargs, "socket_timeout": seconds, "socket_connect_timeout": seconds}
        store = RedisStore(self._service, self._location, brief, self._log_length, self._durability)
        try:
            yield store
        finally:
            store.close()

    def _forget(self) -> None:
        super()._forget()
        self._more_to_read = False

    def _damaged(self, why: str) -> StoreUnavailable:
        return StoreUnavailable(
            f"the config store at {self._where} is damaged ({why}): restore it, or delete the keys {self._prefix}:* "
            "and load the configuration again"
        )
