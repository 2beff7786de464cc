"""``tls_tenant_manager``: push and pop the bound tenant by hand, as in a shell."""

from __future__ import annotations

from tenant_router import context as _context
from tenant_router import unit_of_work as units
from tenant_router.exceptions import TenantContextMissing
from tenant_router.tenant_context import TenantContext


class TaskLocalTenantManager:
    """A thin face over the context variable; it holds no state of its own.

    Prefer ``tenant_context_bind`` in code: it cannot forget the pop.
    """

    @property
    def current_tenant_context(self) -> TenantContext | None:
        """The bound :class:`TenantContext`, or ``None``."""
        return _context.current()

    def push_tenant_context(self, context: TenantContext) -> None:
        """Bind ``context`` until it is popped; at its current revision, if it is of an earlier unit of work.

        Raises ``TransactionOpen`` inside an open transaction of another tenant, or why it cannot be bound.
        """
        _context.push(_context.pinned(context.id) or _context.find_again(context))

    def pop_tenant_context(self) -> TenantContext:
        """Unbind and return the bound context. Raises ``TenantContextMissing`` when there is none."""
        bound = _context.bound() if _context.stack.get() else ()
        if not bound:
            raise TenantContextMissing("pop_tenant_context() without a push: no tenant is bound here")
        popped: TenantContext = bound[-1]
        # The unit goes on where a copy of this context has it bound still: it is over when nobody has.
        _context.leave(bound[:-1] if len(bound) > 2 else (), ends=False)
        del bound
        units.release_abandoned()
        return popped

    def refresh(self) -> TenantContext:
        """Go on with the current revision of the bound tenant, as in a block that lasts for long.

        Returns the new context. Raises ``TenantContextMissing``, ``TransactionOpen`` inside an open transaction of
        the tenant, or why it cannot be bound any more; then everything stays as it is.
        """
        bound = _context.bound() if _context.stack.get() else ()
        if not bound:
            raise TenantContextMissing("refresh() without a tenant: none is bound here")
        return _context.refresh(bound)


tls_tenant_manager = TaskLocalTenantManager()
