"""``tls_tenant_manager``: push and pop the bound tenant by hand, as in a shell."""

from __future__ import annotations

from tenant_router import context as _context
from tenant_router.context import TenantContext
from tenant_router.exceptions import TenantContextMissing


class TaskLocalTenantManager:
    """A thin face over the context variable; it holds no state of its own.

    Prefer ``tenant_context_bind`` in code: it cannot forget the pop.
    """

    @property
    def current_tenant_context(self) -> TenantContext | None:
        """The bound :class:`TenantContext`, or ``None``."""
        return _context.current()

    def push_tenant_context(self, context: TenantContext) -> None:
        """Bind ``context`` until it is popped.

        Raises ``TransactionOpen`` inside an open transaction of another tenant.
        """
        _context.enter(_context.pinned(context.id) or context)

    def pop_tenant_context(self) -> TenantContext:
        """Unbind and return the bound context. Raises ``TenantContextMissing`` when there is none."""
        bound = _context.stack.get()
        if not bound:
            raise TenantContextMissing("pop_tenant_context() without a push: no tenant is bound here")
        _context.leave(bound[:-1])
        return bound[-1]


tls_tenant_manager = TaskLocalTenantManager()
