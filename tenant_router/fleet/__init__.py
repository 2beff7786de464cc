"""Work for many tenants, and what their databases are like. ``for_each_tenant`` is for applications.

Other rooms import this room's modules: ``selectors`` and ``labels`` (who is meant), ``runner``, ``in_process``,
``processes``, ``interrupts`` and ``output`` (how it is run), ``outcomes``, ``ledger``, ``following`` and ``locks``.
"""

from tenant_router.fleet.in_process import for_each_tenant
from tenant_router.fleet.outcomes import Outcome
from tenant_router.fleet.selectors import SelectionError

__all__ = ["Outcome", "SelectionError", "for_each_tenant"]
