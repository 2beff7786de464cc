"""Running an existing test suite under tenant routing, and writing tests about tenants."""

from tenant_router.testing.runner import TenantTestRunner

__all__ = ["TenantTestRunner"]
