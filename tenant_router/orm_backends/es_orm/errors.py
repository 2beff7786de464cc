"""What a tenant's client raises when a request would not stay inside the tenant."""

from __future__ import annotations

from tenant_router.exceptions import TenantRouterError


class RequestRefused(TenantRouterError):
    """An Elasticsearch request that cannot be kept inside the tenant; nothing was sent."""
