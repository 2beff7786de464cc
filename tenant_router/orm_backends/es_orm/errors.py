"""``RequestRefused``: raised for a request that cannot be confined to the tenant."""

from __future__ import annotations

from tenant_router.exceptions import TenantRouterError


class RequestRefused(TenantRouterError):
    """An Elasticsearch request that cannot be kept inside the tenant; nothing was sent."""
