"""Logging: which tenant a line is about."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any

from tenant_router import context as _context


class TenantFilter(logging.Filter):
    """Gives every record a ``tenant_id``: of the bound tenant, else ``"-"``."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the attribute; nothing is ever filtered out."""
        if not hasattr(record, "tenant_id"):
            record.tenant_id = _context.current_id() or "-"
        return True


MASK = "***"
_SECRET = re.compile(r"pass|secret|token|key|credential|signature|auth", re.IGNORECASE)
_URL_PASSWORD = re.compile(r"(?P<before>[a-z][a-z0-9+.-]*://[^/\s:@]*:)\S*(?=@)", re.IGNORECASE)


def redact(value: Any) -> Any:
    """A copy of ``value`` without what looks like a secret: values by their key's name, passwords in URLs."""
    if isinstance(value, Mapping):
        return {key: MASK if _SECRET.search(str(key)) and item else redact(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [redact(item) for item in value]
    return _URL_PASSWORD.sub(rf"\g<before>{MASK}", value) if isinstance(value, str) else value
