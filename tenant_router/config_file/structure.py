"""The two JSON Schemas once more, as plain code that answers only yes or no.

``jsonschema`` takes a hundred times as long and is slow to import; what is refused here is
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


def fits_record(value: object) -> bool:
    """Whether ``value`` satisfies ``record.schema.json``."""
    if not is_object(value) or "orm_config" not in value:
        return False
    return all(_fits_part(key, part) for key, part in value.items())


def _fits_part(key: str, part: object) -> bool:
    if key in _RECORD_DEPTHS:
        return _objects(part, _RECORD_DEPTHS[key])
    if key == "labels":
        return isinstance(part, list) and all(isinstance(label, str) for label in part)
    return key.startswith("x-")


def fits_file(value: object) -> bool:
    """Whether ``value`` satisfies ``tenant_config.schema.json``."""
    return (
        is_object(value)
        and value.keys() <= _FILE_KEYS
        and _fits_metadata(value.get("mapping_metadata"))
        and _fits_tenants(value.get("tenant_config", {}))
    )


def _fits_metadata(value: object) -> bool:
    return is_object(value) and all(isinstance(path, str) for path in value.values())


def _fits_tenants(value: object) -> bool:
    return is_object(value) and all(is_tenant_id(name) and _fits_services(part) for name, part in value.items())


def _fits_services(value: object) -> bool:
    return (
        is_object(value)
        and bool(value)
        and value.keys().isdisjoint(_RECORD_DEPTHS)
        and all(map(fits_record, value.values()))
    )


def _objects(value: object, depth: int) -> bool:
    """Whether ``value`` is an object, and its values are, down to ``depth`` levels."""
    return is_object(value) and (depth == 1 or all(_objects(inner, depth - 1) for inner in value.values()))


FITS: dict[str, Callable[[object], bool]] = {"record": fits_record, "tenant_config": fits_file}
