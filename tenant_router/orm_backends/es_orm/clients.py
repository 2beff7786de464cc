"""The clients that applications use: Elasticsearch's own, on a transport that confines requests to the tenant."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple
from weakref import finalize

from elastic_transport import ApiResponseMeta, TransportApiResponse
from elastic_transport.client_utils import DEFAULT
from elasticsearch import AsyncElasticsearch, Elasticsearch

from tenant_router import context as _context
from tenant_router.exceptions import TenantMismatch
from tenant_router.managers import tenant_context_manager
from tenant_router.orm_backends.es_orm.confinement import Confined, Confinement, check_headers
from tenant_router.orm_backends.es_orm.response_bodies import raw
from tenant_router.orm_backends.es_orm.shared_client import SharedClient

ORM_ID = "es_orm"
# What a client keeps for each request beside its headers (elasticsearch/_sync/client/_base.py).
_DEFAULTS = ("request_timeout", "max_retries", "retry_on_status", "retry_on_timeout")


class Scope:
    """The tenant, index prefix and shared client of requests at one alias."""

    __slots__ = ("confinement", "prefix", "shared", "tenant_id")

    def __init__(self, tenant_id: str, alias: str, prefix: str, shared: SharedClient) -> None:
        self.tenant_id, self.prefix, self.shared = tenant_id, prefix, shared
        self.confinement: Confinement | None = Confinement(tenant_id, alias, prefix)

    @classmethod
    def central(cls, alias: str, shared: SharedClient) -> Scope:
        """The scope of a reserved alias: no tenant's, and not confined."""
        scope = cls("", alias, "", shared)
        scope.confinement = None
        return scope


class TenantClients:
    """One tenant's clients for one alias. While it lives, the shared client of its cluster is kept.

    Only contexts hold it. The clients below refer to its scope and not to it, because they are
    cycles: it must go with the last context, and not wait for the garbage collector.
    """

    def __init__(self, tenant_id: str, alias: str, prefix: str, shared: SharedClient) -> None:
        self.alias, self.scope = alias, Scope(tenant_id, alias, prefix, shared)
        shared.acquire()
        finalize(self, shared.release)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.scope.tenant_id!r} {self.alias!r} at {self.scope.shared.cluster!r}>"

    @cached_property
    def client(self) -> Elasticsearch:
        """The tenant's client."""
        return make_client(self.alias, self.scope)

    @cached_property
    def async_client(self) -> AsyncElasticsearch:
        """The tenant's asynchronous client."""
        return make_async_client(self.alias, self.scope)


class _Request(NamedTuple):
    """A request that is confined and about to be sent."""

    scope: Scope
    confined: Confined
    method: str
    headers: Any
    options: dict[str, Any]

    def response(self, meta: ApiResponseMeta, answer: Any) -> TransportApiResponse:
        """The answer, in the index names of the tenant that asked."""
        if self.scope.confinement is not None:
            answer = self.scope.confinement.answer(self.confined, meta.status, answer)
        return TransportApiResponse(meta, answer)


class _TransportBase:
    """The base of the two transports. ``scope``: whose client it is; ``None``: the bound tenant's."""

    def __init__(self, alias: str, scope: Scope | None) -> None:
        self._alias, self._scope = alias, scope

    @property
    def serializers(self) -> Any:
        """The serializers of the cluster's client; the bulk helpers measure documents with them."""
        return self._current_scope().shared.serializers

    def _current_scope(self) -> Scope:
        """Whose request this is. Raises ``TenantContextMissing``, or ``TenantMismatch`` for another tenant's client."""
        if self._scope is not None and not self._scope.tenant_id:  # central
            return self._scope
        bound = _context.stack.get() or _context.ambient
        if bound and bound[0].over:
            bound = _context.bound()
        if self._scope is not None and (
            not bound or (bound is _context.ambient and bound[-1].id != self._scope.tenant_id)
        ):
            return self._kept(self._scope.tenant_id)
        if not bound:
            raise _context.missing(f"Elasticsearch alias {self._alias!r}")
        scope: Scope = bound[-1].parts[ORM_ID][self._alias].scope
        if self._scope is not None and scope.tenant_id != self._scope.tenant_id:
            raise TenantMismatch(
                f"an Elasticsearch client of tenant {self._scope.tenant_id!r} is used while "
                f"{scope.tenant_id!r} is bound: get_client() where it is used"
            )
        return scope

    def _kept(self, tenant_id: str) -> Scope:
        """The current scope of the tenant whose client unbound code has (a thread of ``parallel_bulk``, for one).

        Raises as ``get_by_id`` does: a tenant that is gone writes nothing any more.
        """
        in_any_state = tenant_context_manager.state_of(tenant_id) == "P"  # which is being migrated
        find = tenant_context_manager.get_in_any_state if in_any_state else tenant_context_manager.get_by_id
        scope: Scope = find(tenant_id).parts[ORM_ID][self._alias].scope
        return scope

    def _request(self, method: str, target: str, body: Any, headers: Any, options: dict[str, Any]) -> _Request:
        scope = self._current_scope()
        gate = scope.shared.pool.gate
        if gate is not None:
            gate(scope.prefix, method, target)
        if scope.confinement is None:
            confined = Confined(target, body, raw)
        else:
            if headers is not DEFAULT and headers:
                check_headers(headers)
            confined = scope.confinement.request(method, target, body, scope.shared.dumps)
        return _Request(scope, confined, method, headers, options)


class TenantTransport(_TransportBase):
    """Stands in a client where its ``elastic_transport.Transport`` would be."""

    def perform_request(
        self, method: str, target: str, *, body: Any = None, headers: Any = DEFAULT, **options: Any
    ) -> TransportApiResponse:
        """Send a request after confining it."""
        request = self._request(method, target, body, headers, options)
        with request.scope.shared.sync(request.scope.tenant_id) as client:
            meta, answer = client.transport.perform_request(**_arguments(request, client))
        return request.response(meta, answer)

    def close(self) -> None:
        """Nothing is closed: other tenants use the same connections."""


class AsyncTenantTransport(_TransportBase):
    """:class:`TenantTransport` for ``AsyncElasticsearch``."""

    async def perform_request(
        self, method: str, target: str, *, body: Any = None, headers: Any = DEFAULT, **options: Any
    ) -> TransportApiResponse:
        """Send a request after confining it."""
        request = self._request(method, target, body, headers, options)
        async with request.scope.shared.async_client(request.scope.tenant_id) as client:
            meta, answer = await client.transport.perform_request(**_arguments(request, client))
        return request.response(meta, answer)

    async def close(self) -> None:
        """Nothing is closed: other tenants use the same connections."""

    async def _async_call(self) -> None:
        """What ``async with client`` awaits: there is nothing to prepare."""


def make_client(alias: str, scope: Scope | None) -> Elasticsearch:
    """A client of one tenant, or (``None``) of whichever tenant is bound when it is used."""
    return Elasticsearch(_transport=_as_any(TenantTransport)(alias, scope))


def make_async_client(alias: str, scope: Scope | None) -> AsyncElasticsearch:
    """:func:`make_client`, asynchronous."""
    return AsyncElasticsearch(_transport=_as_any(AsyncTenantTransport)(alias, scope))


def _arguments(request: _Request, client: Any) -> dict[str, Any]:
    """What the request is sent with: its own headers and options, and the cluster's where it has none."""
    headers = client._headers.copy()
    headers.update({} if request.headers is DEFAULT else request.headers)
    options = dict(request.options)
    for name in _DEFAULTS:
        if options.get(name, DEFAULT) is DEFAULT:
            options[name] = getattr(client, f"_{name}")
    return {
        "method": request.method,
        "target": request.confined.target,
        "body": request.confined.body,
        "headers": headers,
        **options,
    }


def _as_any(kind: type) -> Callable[..., Any]:
    return kind
