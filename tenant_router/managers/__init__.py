"""The two objects that application code may use: the registry here, the bound tenant in ``task_local``."""

from tenant_router.managers.registry import TenantContextManager

tenant_context_manager = TenantContextManager()

__all__ = ["TenantContextManager", "tenant_context_manager"]
