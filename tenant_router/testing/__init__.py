"""Running an existing test suite under tenant routing, and writing tests about tenants."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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
_MODULES = {
    "TenantTestCase": "cases",
    "TenantTransactionTestCase": "cases",
    "TenantTestRunner": "runner",
    "tenant_async_client": "clients",
    "tenant_client": "clients",
}


def __getattr__(name: str) -> Any:
    # At first use: pytest loads the plugin of this room before any project's settings.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
