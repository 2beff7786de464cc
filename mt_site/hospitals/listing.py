"""The list of hospitals as the page shows it; it changes rarely, so it is cached."""

from typing import Any

from django.core.cache import caches

from hospitals.models import Hospital

KEY = "hospitals:list"
SECONDS = 300


def hospitals() -> list[dict[str, Any]]:
    listing: list[dict[str, Any]] | None = caches["default"].get_or_set(KEY, _load, SECONDS)
    return listing or []


def forget() -> None:
    caches["default"].delete(KEY)


def _load() -> list[dict[str, Any]]:
    return list(Hospital.objects.values("id", "name", "city", "specialty", "beds"))
