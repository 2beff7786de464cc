"""Work for many tenants: who is meant, how it is run, what came of it. ``for_each_tenant`` is for applications.

Other rooms import its modules: ``selectors``, ``labels``, ``runner``, ``interrupts``, ``outcomes``, ``in_process``,
``processes``, ``output``, ``ledger``, ``locks``, ``servers`` and ``following``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tenant_router.fleet.in_process import for_each_tenant
    from tenant_router.fleet.outcomes import Outcome
    from tenant_router.fleet.selectors import SelectionError

__all__ = ["Outcome", "SelectionError", "for_each_tenant"]

_MODULES = {"Outcome": "outcomes", "SelectionError": "selectors", "for_each_tenant": "in_process"}


def __getattr__(name: str) -> Any:
    # Only now: every server imports the ledger, and with it this package, and few do work for many tenants.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
