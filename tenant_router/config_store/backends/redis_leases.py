"""Claims, leases and notes in Redis: what is said beside the history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from tenant_router.config_store.backends import redis_wire as wire
from tenant_router.config_store.backends.redis_conversation import RedisConversation
from tenant_router.config_store.base import Lease

_LEASE = Path(__file__).with_name("lease.lua").read_text("utf-8")
_LEASES = """
local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
return {now, redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES'), redis.call('HGETALL', KEYS[2])}
"""
_CLAIM = """
local has = redis.call('HGET', KEYS[1], ARGV[1])
if has and (ARGV[3] == '' or has ~= ARGV[3]) then
  return 0
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
"""
_RELEASE = """
if ARGV[2] == '' or redis.call('HGET', KEYS[1], ARGV[1]) == ARGV[2] then
  redis.call('HDEL', KEYS[1], ARGV[1])
end
"""
_WRITE_NOTES = """
for i = 1, #ARGV, 3 do
  if ARGV[i + 1] == '=' then
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 2])
  else
    redis.call('HDEL', KEYS[1], ARGV[i])
  end
end
"""


class RedisLeases(RedisConversation):
    """Those verbs of the contract that are optional and no part of the history. Raises as its base does."""

    def __init__(self, service: str, location: Mapping[str, Any], client_kwargs: Mapping[str, Any]) -> None:
        super().__init__(service, location, client_kwargs)
        self._fleet, self._said = f"{self._prefix}:fleet", f"{self._prefix}:said"

    keeps_claims = True

    def claim(self, name: str, member: str, seconds: float, by: str = "") -> bool:
        """Whether ``member`` was not in the set ``name``, or is by the same; the set lives for ``seconds`` more."""
        key = f"{self._prefix}:claims:{name}"
        with self._guard():
            return bool(self._run(_CLAIM, [key], [member, int(seconds * 1000), by]))

    def claimed(self, name: str) -> set[str]:
        """The members of a set."""
        with self._guard():
            return {member.decode(errors="replace") for member in self._client.hkeys(f"{self._prefix}:claims:{name}")}

    def release(self, name: str, member: str, by: str = "") -> None:
        """Take ``member`` out of the set, unless another than ``by`` has claimed it."""
        with self._guard():
            self._run(_RELEASE, [f"{self._prefix}:claims:{name}"], [member, by])

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

    keeps_notes = True

    def notes(self, book: str, names: Sequence[str]) -> dict[str, str]:
        """Those of the notes ``names`` of a book that there are."""
        if not names:
            return {}
        with self._guard():
            values = self._client.hmget(self._book(book), list(names))
            return {name: value.decode() for name, value in zip(names, values, strict=True) if value is not None}

    def scan_notes(self, book: str, cursor: str, limit: int) -> tuple[str, dict[str, str]]:
        """One page of a book; Redis returns a small one whole whatever ``limit`` says."""
        with self._guard():
            following, page = self._client.hscan(self._book(book), cursor or "0", count=limit)
            found = {name.decode(): value.decode() for name, value in page.items()}
        return str(following) if int(following) else "", found

    def write_notes(self, book: str, notes: Mapping[str, str | None]) -> None:
        """Write all of ``notes``, or nothing; ``None`` removes one."""
        fields = [[name, "", ""] if value is None else [name, "=", value] for name, value in notes.items()]
        with self._guard():
            self._run(_WRITE_NOTES, [self._book(book)], [*chain.from_iterable(fields)])

    def _book(self, name: str) -> str:
        return f"{self._prefix}:notes:{name}"
