"""The wire format of the Redis backend: keys, values, pub/sub messages, error replies, ``LOCATION``.

All of it is pure and needs no Redis; the conversation itself is in ``redis_conversation.py``. The keys
share the hash tag ``{tr:<service>}``, so they live in one slot of a cluster:

=========  ======  ==============================================================================
``:meta``  hash    ``epoch``, ``rev``, ``chain``, ``format`` of the latest writer, ``min_reader`` where one is set
``:docs``  hash    tenant -> the entry of the index, ``|`` and the body; none for a deleted tenant
``:idx``   hash    tenant -> ``<rev>:<state>:<digest>:<ms>:<incarnation>``; a deleted tenant stays, with state ``X``
``:log``   stream  entry id ``<rev>-0``, fields ``t`` tenant, ``e`` entry of the index, ``c`` chain
``:req:``  string  one per request id of the last hour: the revision that its commit returned
``:fleet`` zset    a living process -> the server's milliseconds at which its lease ends
``:said``  hash    a living process -> ``<milliseconds of a lease>|`` and what it says of itself
=========  ======  ==============================================================================

``<ms>`` is the server's time of the change. Hashes and the log may have fields that a reader does not
know, and an entry of the index more fields at its end, of lower-case letters, digits and ``._=-``.

The channel ``:events`` carries revisions, and the tenant where a commit changed one. It is what wakes
readers; the log is what they read.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from tenant_router.config_store.base import UNREADABLE, Event, Lease, Op, StoredRecord, tail_of, unpack
from tenant_router.exceptions import Denied, StoreError, StoreUnavailable
from tenant_router.secrets import SecretBytes

logger = logging.getLogger(__name__)

_PACKED = rb"[0-9]{1,16}:[A-Z]:[0-9a-f]{0,64}(?::[a-z0-9._=-]*)*"
_ENTRY = re.compile(_PACKED)
_LINES = re.compile(_PACKED + rb"(?:\n" + _PACKED + rb")*")
MULTI_SERVER_KEYS = frozenset(
    {"SENTINELS", "MASTER", "SENTINEL_KWARGS", "CLUSTER"}
)  # keys of LOCATION for more than one server
_ARGUMENTS = {"HOST": "host", "PORT": "port", "DB": "db", "USERNAME": "username", "PASSWORD": "password"}
_REFUSALS = frozenset({"AuthenticationError", "AuthorizationError", "NoPermissionError"})
# inside a script Redis 6 wraps an error in another one, and words a refused command differently
_DENIED = "NOPERM|NOAUTH|WRONGPASS|ACL failure|The user executing the script"
_ADVICE = {
    "ReadOnlyError|READONLY": "is a read-only replica: LOCATION must name the primary",
    "OutOfMemoryError|OOM": "is out of memory and nothing was written: raise its maxmemory",
    "WRONGTYPE": "has a key {prefix}:* of an unknown type: another application may be using it",
}


def index_entries(page: Mapping[bytes, bytes]) -> dict[str, str]:
    """A page of the index, whose values are packed as Redis has them; ``UNREADABLE`` for those that are not.

    A page is checked and decoded in one piece, because a process that starts may read 100,000 of its entries.
    """
    values = b"\n".join(page.values())
    if _LINES.fullmatch(values):
        packed, names = values.decode("ascii").split("\n"), _name(b"\n".join(page)).split("\n")
        if len(packed) == len(names) == len(page):
            return dict(zip(names, packed, strict=True))
    return dict(_one_by_one(page))


def _one_by_one(page: Mapping[bytes, bytes]) -> Iterator[tuple[str, str]]:
    for key, value in page.items():
        yield _name(key), value.decode("ascii") if _ENTRY.fullmatch(value) else UNREADABLE


def records(pairs: Iterable[tuple[bytes, bytes]]) -> dict[str, StoredRecord]:
    """The readable ones of ``(tenant, value)`` pairs of the documents."""
    found = {}
    for key, value in pairs:
        entry, _, body = value.partition(b"|")
        if _ENTRY.fullmatch(entry):
            said = entry.decode("ascii")
            found[_name(key)] = StoredRecord(*unpack(said), body, tail_of(said))
    return found


def _name(key: bytes) -> str:
    return str(key, "utf-8", "backslashreplace")


def events(entries: Iterable[tuple[bytes, Mapping[bytes, bytes]]]) -> list[Event]:
    """The readable ones of the log's entries; what is skipped leaves a gap that the reader will see."""
    found, skipped = [], []
    for entry_id, fields in entries:
        try:
            rev = int(entry_id.removesuffix(b"-0"))
            tenant_id, entry, chain = (fields[name].decode() for name in (b"t", b"e", b"c"))
            if _ENTRY.fullmatch(fields[b"e"]) is None:
                raise ValueError
            _, state, digest = unpack(entry)
            found.append(Event(rev, tenant_id, state, digest, chain, tail=tail_of(entry)))
        except (ValueError, KeyError):
            skipped.append(entry_id)
    if skipped:
        logger.warning("%d entries of the log are unreadable and were skipped, such as %r", len(skipped), skipped[0])
    return found


def leases(now: int, ends: Sequence[bytes], said: Sequence[bytes]) -> dict[str, Lease]:
    """The leases that have not ended at ``now`` (milliseconds), of replies that alternate names and values.

    One of which nobody wrote what is here says nothing: its process may exist all the same.
    """
    found, values = {}, dict(zip(said[::2], said[1::2], strict=False))
    for name, end in zip(ends[::2], ends[1::2], strict=False):
        if float(end) > now:
            found[_name(name)] = _lease(now, end, values.get(name, b""))
    return found


def _lease(now: int, end: bytes, said: bytes) -> Lease:
    lasts, _, value = said.partition(b"|")
    if not (end.isdigit() and lasts.isdigit() and len(lasts) < len(end)):
        return Lease("", 0.0)
    return Lease(value.decode(errors="replace"), (now - (int(end) - int(lasts))) / 1000)


def commit_arguments(op: Op) -> tuple[str | int | bytes, ...]:
    """One operation as the commit script takes it."""
    return op.tenant_id, op.state, "" if op.expect is None else op.expect, op.digest, SecretBytes(op.body)


def parse_push(message: Sequence[Any]) -> tuple[int, str]:
    """The revision that a push announces, and the tenant if it names one; 0 for anything else, such as a PING's answer.

    Whoever may publish can send it, so it is a reason to read and never what is believed.
    """
    revision, _, tenant_id = (message[2] if message[0] == b"message" else b"").partition(b" ")
    return (int(revision), tenant_id.decode(errors="replace")) if revision.isdigit() else (0, "")


def translate_error(error: Exception, where: str, prefix: str) -> StoreError:
    """The contract's error for one of the client's or of the socket's, without credentials in its message."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    # a server repeats the arguments of a command that it does not know, and that of AUTH is the password
    said = f"{type(error).__name__}: {error}".split(", with args", 1)[0]
    reply = said if "ResponseError" in kinds else ""  # a host name may contain anything
    if kinds & _REFUSALS or re.search(_DENIED, reply):
        return Denied(f"{where} refused the credentials or the command: {said}")
    for pattern, advice in _ADVICE.items():
        if re.search(pattern, reply):
            return StoreUnavailable(f"{where} {advice.format(prefix=prefix)} ({said})")
    return StoreUnavailable(f"{where} cannot be used now: {said}")


def client_options(location: Mapping[str, Any]) -> dict[str, Any]:
    """The client's arguments for what ``LOCATION`` says apart from its ``URL``. Raises ``ValueError``."""
    if unknown := location.keys() - _ARGUMENTS.keys() - {"URL"}:
        raise ValueError(
            f"LOCATION has the unknown key {min(unknown)!r}; "
            f"it takes {', '.join(_ARGUMENTS)}, or URL, SENTINELS or CLUSTER"
        )
    named = {_ARGUMENTS[key]: value for key, value in location.items() if key in _ARGUMENTS and value is not None}
    if location.get("URL") is not None and named.keys() & {"host", "port"}:
        raise ValueError("LOCATION has both a URL and a HOST or PORT; give one of them")
    return {name: _number(name, value) if name in ("port", "db") else value for name, value in named.items()}


def _number(name: str, value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        raise ValueError(f"LOCATION[{name.upper()!r}] is no number: {value!r}") from None
