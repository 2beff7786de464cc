"""Logging: which tenant a line is about."""

from __future__ import annotations

import logging

from tenant_router import context as _context


class TenantFilter(logging.Filter):
    """Gives every record a ``tenant_id``: of the bound tenant, else ``"-"``."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the attribute; nothing is ever filtered out."""
        if not hasattr(record, "tenant_id"):
            bound = _context.current()
            record.tenant_id = bound.id if bound else "-"
        return True
