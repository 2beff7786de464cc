"""Encodes and decodes stored records: the serializer's payload in an envelope.

``T1|<serializer name>|<32 hex digits of nonce>|<payload>``; the nonce may be followed by ``;<field>``, of which this
release knows ``i=<incarnation>``: the name that the tenant's databases are stamped with. A later release may add
fields, and keys to the record, which a reader ignores that does not know them. The payload repeats the tenant's
id, so a writer cannot swap the records of two tenants unnoticed; the nonce keeps equal
records from having equal digests in the index.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from secrets import token_hex
from typing import Any

from tenant_router.config_store.serializers.base import Serializer
from tenant_router.exceptions import SerializerError
from tenant_router.secrets import conceal_record, plain, without_frames

VERSION = 1
_ENVELOPE = re.compile(rb"T1\|([a-z0-9_-]{1,32})\|[0-9a-f]{32}((?:;[a-zA-Z0-9._=-]*)*)\|")
_INCARNATION = re.compile(rb";i=([0-9a-f]{32})(?=;|$)")
_OWN_KEYS = frozenset({"v", "id"})


def encode(tenant_id: str, record: Mapping[str, Any], serializer: Serializer, incarnation: str = "") -> bytes:
    """The bytes to store for ``record``, concealed secrets included. Raises ``SerializerError``.

    ``incarnation``: the 32 hex digits that the tenant's databases are stamped with; empty where they are not.
    """
    if taken := _OWN_KEYS & record.keys():
        raise SerializerError(f"the record of {tenant_id!r} may not use the reserved keys {sorted(taken)}")
    try:
        payload = serializer.dumps(_own(tenant_id, record))
    except SerializerError as error:
        raise without_frames(error)
    return _envelope(serializer.name, incarnation) + payload


def stamped(body: bytes, incarnation: str) -> bytes:
    """``body`` with another incarnation, or with none."""
    envelope = _ENVELOPE.match(body)
    if envelope is None:
        raise SerializerError("the stored record was not written by this version of tenant_router")
    return _envelope(envelope[1].decode("ascii"), incarnation) + body[envelope.end() :]


def incarnation_of(body: bytes) -> str:
    """What the databases of a record are stamped with; empty where they are not."""
    envelope = _ENVELOPE.match(body)
    found = _INCARNATION.search(envelope[2]) if envelope else None
    return found[1].decode("ascii") if found else ""


def _envelope(serializer: str, incarnation: str) -> bytes:
    mark = f";i={incarnation}" if incarnation else ""
    return f"T1|{serializer}|{token_hex(16)}{mark}|".encode("ascii")


def decode(tenant_id: str, body: bytes, serializer: Serializer) -> dict[str, Any]:
    """The record that ``encode`` was given for ``tenant_id``, its secrets concealed.

    Raises ``SerializerError``.
    """
    try:
        record = _read(tenant_id, body, serializer)
    except SerializerError as error:
        del body
        raise without_frames(error)
    return conceal_record(record)


def _read(tenant_id: str, body: bytes, serializer: Serializer) -> dict[str, Any]:
    record = serializer.loads(_payload(tenant_id, body, serializer))
    _check_payload(tenant_id, record)
    return {key: value for key, value in record.items() if key not in _OWN_KEYS}


def holds(tenant_id: str, body: bytes, record: Mapping[str, Any], serializer: Serializer) -> bool:
    """Whether ``body`` is what ``encode`` would return for ``record``, apart from its nonce."""
    try:
        payload = _payload(tenant_id, body, serializer)
    except SerializerError:
        return False
    return serializer.holds(payload, _own(tenant_id, record))


def _own(tenant_id: str, record: Mapping[str, Any]) -> dict[str, Any]:
    return {"v": VERSION, "id": tenant_id, **plain(dict(record))}


def _payload(tenant_id: str, body: bytes, serializer: Serializer) -> bytes:
    envelope = _ENVELOPE.match(body)
    if envelope is None:
        raise SerializerError(f"the stored record of {tenant_id!r} was not written by this version of tenant_router")
    _check_serializer(tenant_id, envelope[1].decode("ascii"), serializer)
    return body[envelope.end() :]


def _check_serializer(tenant_id: str, written: str, serializer: Serializer) -> None:
    if written != serializer.name:
        raise SerializerError(
            f"the record of {tenant_id!r} was written by the serializer {written!r}, but {serializer.name!r} is "
            "configured: set TENANT_ROUTER_CONFIG_STORE_SETTINGS['OPTIONS']['SERIALIZER']['CLASS'] to the one that "
            "wrote it, or load the configuration again"
        )


def _check_payload(tenant_id: str, record: Mapping[str, Any]) -> None:
    version = record.get("v")
    if type(version) is not int or version != VERSION:
        raise SerializerError(
            f"the record of {tenant_id!r} is not of version {VERSION}: load it with this release again"
        )
    if record.get("id") != tenant_id:
        raise SerializerError(f"the record stored for {tenant_id!r} belongs to another tenant and was not loaded")
