"""A fast validator for the two JSON Schemas: plain code that answers only yes or no.

``jsonschema`` takes a hundred times as long and is slow to import; what is invalid here is
explained by it. The tests hold the two against each other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeGuard

from tenant_router.identity import is_tenant_id

_FILE_KEYS = frozenset({"mapping_metadata", "tenant_config"})
_RECORD_DEPTHS = {"orm_config": 3, "cache_config": 2}  # levels of objects


def is_object(value: object) -> TypeGuard[dict[str, Any]]:
    """Whether ``value`` is a JSON object: a store's serializer may yield keys that JSON has not."""
    return isinstance(value, dict) and {*map(type, value)} <= {str}


def is_valid_record(value: object) -> bool:
    """Whether ``value`` satisfies ``record.schema.json``."""
    if not is_object(value) or "orm_config" not in value:
        return False
    return all(_valid_part(key, part) for key, part in value.items())


def _valid_part(key: str, part: object) -> bool:
    if key in _RECORD_DEPTHS:
        return _are_objects(part, _RECORD_DEPTHS[key])
    if key == "labels":
        return isinstance(part, list) and all(isinstance(label, str) for label in part)
    return key.startswith("x-")


def is_valid_file(value: object) -> bool:
    """Whether ``value`` satisfies ``tenant_config.schema.json``."""
    return (
        is_object(value)
        and value.keys() <= _FILE_KEYS
        and _valid_metadata(value.get("mapping_metadata"))
        and _valid_tenants(value.get("tenant_config", {}))
    )


def _valid_metadata(value: object) -> bool:
    return is_object(value) and all(isinstance(path, str) for path in value.values())


def _valid_tenants(value: object) -> bool:
    return is_object(value) and all(is_tenant_id(name) and _valid_services(part) for name, part in value.items())


def _valid_services(value: object) -> bool:
    return (
        is_object(value)
        and bool(value)
        and value.keys().isdisjoint(_RECORD_DEPTHS)
        and all(map(is_valid_record, value.values()))
    )


def _are_objects(value: object, depth: int) -> bool:
    """Whether ``value`` is an object, and its values are, down to ``depth`` levels."""
    return is_object(value) and (depth == 1 or all(_are_objects(inner, depth - 1) for inner in value.values()))


IS_VALID: dict[str, Callable[[object], bool]] = {"record": is_valid_record, "tenant_config": is_valid_file}
