"""What a tenant's connection may send: a client reaches whatever its credentials allow, a tenant its own database.

Commands name their database, and some of them others inside. What is not read here is what cannot name one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from bson import decode
from pymongo.compression_support import decompress

if TYPE_CHECKING:
    from tenant_router.orm_backends.mongo.bound_client import Home

# Of the database admin: what PyMongo itself sends there, and what tells of the server and of nobody's data.
_OF_ADMIN = frozenset(
    ("ping", "buildinfo", "hello", "ismaster", "committransaction", "aborttransaction", "renamecollection")
)
# Run as code, or as operations of any namespace.
_NEVER = frozenset(("eval", "$eval", "applyops", "dotxn"))
_READ = frozenset(("aggregate", "create", "collmod", "explain", "mapreduce"))
_INSPECTED = _NEVER | _READ
_REFERENCES = frozenset(("$out", "$merge", "$lookup", "$graphLookup", "$unionWith"))
_OP_MSG, _OP_COMPRESSED = 2013, 2012


def may_reach_out(spec: Mapping[str, Any]) -> bool:
    """Whether a command's content must be looked at. Servers know commands in any case of letters."""
    return str(next(iter(spec), "")).lower() in _INSPECTED


def check(home: Home, dbname: str, spec: Mapping[str, Any]) -> None:
    """Raise ``TenantMismatch`` for a command that reaches beyond the database of ``home``."""
    name, own = str(next(iter(spec), "")).lower(), home.target.name
    if dbname != own:
        if dbname != "admin" or name not in _OF_ADMIN:
            raise home.refuse(f"database {dbname!r} (by {name!r})")
        if name == "renamecollection" and not _stays(spec, own):
            raise home.refuse("another database (by renameCollection)")
    elif name in _NEVER:
        raise home.refuse(f"the whole server (by {name!r})")
    else:
        for reached in _reached(name, spec):
            if reached != own:
                raise home.refuse(f"database {reached!r} (within {name!r})")


def check_message(home: Home, message: bytes) -> None:
    """Raise ``TenantMismatch`` for a finished message to another database than that of ``home``."""
    reached = _database_of(message)
    if reached != home.target.name:
        raise home.refuse(f"database {reached!r}")


def _stays(spec: Mapping[str, Any], own: str) -> bool:
    names = (next(iter(spec.values())), spec.get("to"))
    return all(isinstance(name, str) and name.startswith(f"{own}.") for name in names)


def _reached(name: str, spec: Mapping[str, Any]) -> Iterator[Any]:
    if name == "explain":
        inner = spec[next(iter(spec))]
        if isinstance(inner, Mapping):
            yield from _reached(str(next(iter(inner), "")).lower(), inner)
    elif name == "mapreduce":
        yield from _named_by(spec.get("out"))
    else:
        yield from _in_pipeline(spec.get("pipeline"))


def _in_pipeline(pipeline: Any) -> Iterator[Any]:
    stages = [stage for stage in pipeline if isinstance(stage, Mapping)] if isinstance(pipeline, list | tuple) else []
    for stage in stages:
        for operator, value in stage.items():
            if operator == "$facet" and isinstance(value, Mapping):
                for inner in value.values():
                    yield from _in_pipeline(inner)
            elif operator in _REFERENCES and isinstance(value, Mapping):
                yield from _named_by(value)
                yield from _named_by(value.get("into"))
                yield from _named_by(value.get("from"))
                yield from _in_pipeline(value.get("pipeline"))
                yield from _in_pipeline(value.get("whenMatched"))


def _named_by(reference: Any) -> Iterator[Any]:
    if isinstance(reference, Mapping) and "db" in reference:
        yield reference["db"]


def _database_of(message: bytes) -> str:
    """The database that a message of the wire protocol is for: header, then a body by its operation code."""
    code, body = _number(message, 12), message[16:]
    if code == _OP_COMPRESSED:  # the operation code, the size, the compressor, and the body
        code, body = _number(message, 16), decompress(message[25:], message[24])
    if code == _OP_MSG:  # flags, the kind of the first section (0: a document), which PyMongo writes first
        return str(decode(body[5 : 5 + _number(body, 5)])["$db"])
    return body[4 : body.index(b"\0", 4)].decode().partition(".")[0]  # flags or zero, and the full collection name


def _number(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "little")
