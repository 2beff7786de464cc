"""Connections that no alias leads to: of those who make databases."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from django.db.utils import load_backend

_ALIAS = "tenant_router_provisioning"


@contextmanager
def connected(settings: Mapping[str, Any]) -> Iterator[Any]:
    """A connection with ``settings``, which are complete; each statement is a transaction. Closed afterwards."""
    options = {name: value for name, value in settings.get("OPTIONS", {}).items() if name != "pool"}
    made = load_backend(settings["ENGINE"]).DatabaseWrapper(
        {**settings, "AUTOCOMMIT": True, "OPTIONS": options}, _ALIAS
    )
    try:
        made.ensure_connection()
        yield made
    finally:
        made.close()
