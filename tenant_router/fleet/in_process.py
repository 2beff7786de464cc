"""Work in this process: a function as a tenant, in the calling thread or in several."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from django.db import connections

from tenant_router import context as _context
from tenant_router import runtime
from tenant_router.context_decorators import tenant_context_bind
from tenant_router.fleet.outcomes import Outcome
from tenant_router.fleet.runner import Runner
from tenant_router.fleet.selectors import Tenants, read, states_in
from tenant_router.managers import tenant_context_manager
from tenant_router.orm_backends.django_orm.manager import DjangoOrmManager
from tenant_router.tenant_context import TenantContext

JOBS = 4  # unless somebody says otherwise


def for_each_tenant(
    selector: str | Iterable[str],
    function: Callable[[TenantContext], Any],
    *,
    executor: str = "sequential",
    jobs: int = JOBS,
) -> list[Outcome]:
    """Call ``function(tenant)`` bound to each tenant that ``selector`` means, and return what came of each.

    ``selector``: one or several, such as ``":all:"`` or ``["acme-*", "globex.example.com"]``. ``executor``:
    ``"sequential"`` or ``"threads"``, of which ``jobs`` run at once (fewer where ``MAX_OPEN_CONNECTIONS`` is less).
    What the function raises for one tenant is in its outcome, and the others go on. Raises ``SelectionError``,
    ``StoreError``, ``ValueError`` for another executor.
    """
    if executor not in ("sequential", "threads"):
        raise ValueError(f"executor {executor!r} is neither 'sequential' nor 'threads'")
    words = [selector] if isinstance(selector, str) else list(selector)
    tenant_context_manager.get_tenant_ids()  # so that the registry is filled
    tenants = Tenants(states_in(tenant_context_manager.index.copy()))
    chosen = tenants.select(read(words, stdin=None)).tenant_ids
    threads = affordable(jobs) if executor == "threads" else 0
    runner = Runner(lambda tenant_id: as_tenant(tenant_id, function), threads=threads, leave_thread=leave_thread)
    found = runner.run(chosen)
    if runner.interrupted:
        runner.join()
        raise KeyboardInterrupt
    return found


def as_tenant(tenant_id: str, function: Callable[[TenantContext], Any]) -> Any:
    """Call ``function(tenant)`` bound to a tenant in whatever state; its connections are closed afterwards.

    Raises ``TenantUnresolved`` besides what the function raises.
    """
    outermost = _context.current() is None
    with tenant_context_bind(tenant_context_manager.get_in_any_state(tenant_id)) as tenant:
        try:
            return function(tenant)
        finally:
            if outermost:  # else an outer block may have used them already
                _close_connections()


def affordable(jobs: int) -> int:
    """How many tenants may be worked for at once in threads without any waiting for a connection: at most ``jobs``."""
    manager = runtime.get().orms.get("django_orm")
    if not isinstance(manager, DjangoOrmManager) or not manager.template_aliases:
        return jobs
    return max(1, min(jobs, manager.max_open_connections // len(manager.template_aliases)))


def leave_thread() -> None:
    """Close the connections of a thread that ends, those of reserved aliases too."""
    connections.close_all()


def _close_connections() -> None:
    """Close what the bound tenant's unit of work has open here: the next tenant shall not wait for this one's age."""
    reserved = runtime.get().reserved().get("django_orm", ())
    for connection in connections.all(initialized_only=True):
        if connection.alias not in reserved and not connection.in_atomic_block:
            connection.close()
