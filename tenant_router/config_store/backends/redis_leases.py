"""Claims and leases in Redis: what a process says for a while, beside the history."""

from __future__ import annotations

from collections.abc import Mapping
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
local added = redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
if added == 0 and ARGV[3] ~= '' and redis.call('HGET', KEYS[1], ARGV[1]) == ARGV[3] then
  return 1
end
return added
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
