"""The two objects that application code may use: the registry here, the bound tenant in ``task_local``."""

from tenant_router import context as _context
from tenant_router.managers.registry import TenantContextManager

tenant_context_manager = TenantContextManager()
_context.find_again = tenant_context_manager.find_again

__all__ = ["TenantContextManager", "tenant_context_manager"]
