"""Running an existing test suite under tenant routing, and writing tests about tenants."""

from tenant_router.testing.cases import TenantTestCase, TenantTransactionTestCase
from tenant_router.testing.clients import tenant_async_client, tenant_client
from tenant_router.testing.runner import TenantTestRunner

__all__ = [
    "TenantTestCase",
    "TenantTestRunner",
    "TenantTransactionTestCase",
    "tenant_async_client",
    "tenant_client",
]
