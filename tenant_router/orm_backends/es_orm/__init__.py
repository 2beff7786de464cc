"""Elasticsearch: one client for each tenant, which sees that tenant's indices only.

from tenant_router.orm_backends.es_orm import get_client
get_client().search(index="books", query={"match_all": {}})
"""

from __future__ import annotations

from typing import Any, NoReturn

from elasticsearch import AsyncElasticsearch, Elasticsearch

from tenant_router import context as _context
from tenant_router.exceptions import ConfigurationError
from tenant_router.managers import tenant_context_manager
from tenant_router.orm_backends.es_orm.clients import ORM_ID, TenantClients
from tenant_router.orm_backends.es_orm.errors import RequestRefused
from tenant_router.orm_backends.es_orm.migration_asst import Index, Template

__all__ = ["Index", "RequestRefused", "Template", "get_async_client", "get_client"]


def get_client(alias: str = "default") -> Elasticsearch:
    """The bound tenant's client of ``alias``; of a reserved alias, the central one.

    The client stays the tenant's in threads to which it is handed (``parallel_bulk``), and
    refuses to work while another tenant is bound. With no tenant bound, what comes back works for
    whichever tenant is bound when it is used, and raises ``TenantContextMissing`` when none is.
    """
    bound = _context.stack.get() or _context.ambient
    if bound and bound[0].over:
        bound = _context.bound()  # or what was bound by a unit of work that has ended would be used
    if bound:
        clients: TenantClients | None = bound[-1].parts[ORM_ID].get(alias)
        if clients is not None:
            return clients.client
    manager = _manager()
    found: Elasticsearch | None = manager.clients.get(alias) or manager.central.get(alias)
    return found or _unknown(alias)


def get_async_client(alias: str = "default") -> AsyncElasticsearch:
    """:func:`get_client`, asynchronous; it may be used in any event loop."""
    bound = _context.stack.get() or _context.ambient
    if bound and bound[0].over:
        bound = _context.bound()  # or what was bound by a unit of work that has ended would be used
    if bound:
        clients: TenantClients | None = bound[-1].parts[ORM_ID].get(alias)
        if clients is not None:
            return clients.async_client
    manager = _manager()
    found: AsyncElasticsearch | None = manager.async_clients.get(alias) or manager.async_central.get(alias)
    return found or _unknown(alias)


def _manager() -> Any:
    found = getattr(tenant_context_manager.owner, "orms", {}).get(ORM_ID)
    if found is None:
        raise ConfigurationError(f"{ORM_ID!r} is not in TENANT_ROUTER_ORM_SETTINGS, or tenant_router is not installed")
    return found


def _unknown(alias: str) -> NoReturn:
    known = [*_manager().clients, *_manager().central]
    raise ConfigurationError(
        f"there is no Elasticsearch alias {alias!r} in the settings (there are: {', '.join(known)})"
    )
