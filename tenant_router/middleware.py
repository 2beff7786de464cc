"""Binds the tenant of each request: ``TenantContextMiddleware``, first in ``MIDDLEWARE``."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from typing import Any, cast

from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.core.signals import got_request_exception
from django.http import HttpRequest, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.urls import Resolver404, resolve
from django.utils.module_loading import import_string

from tenant_router import context as _context
from tenant_router import log, runtime
from tenant_router.conf import MIDDLEWARE, conf
from tenant_router.context import Stack
from tenant_router.exceptions import (
    ConfigurationError,
    TenantContextMissing,
    TenantNotFound,
    TenantUnavailable,
    TenantUnresolved,
)
from tenant_router.managers import tenant_context_manager
from tenant_router.requests import health, metrics, response_log
from tenant_router.requests.answers import refusal
from tenant_router.requests.routes import names_of
from tenant_router.requests.streaming import bind_closing, bind_streaming
from tenant_router.tenant_context import TenantContext

TEST_KEY = "tenant_router.tenant_id"  # of the environment (no header can have such a key); read in test runs only
REPORTED = "TENANT_ROUTER_TENANT"  # in request.META: Django's error reports list it
_UNAVAILABLE = "_tenant_router_unavailable"


def resolve_by_host(request: HttpRequest) -> str:
    """The default resolver: the request's host, lower case, without port and trailing dot.

    Raises Django's ``DisallowedHost`` (400) for a malformed host or one outside ``ALLOWED_HOSTS``.
    """
    host = request.get_host()
    if host.startswith("["):  # an IPv6 literal, which no tenant id can be
        return host.lower()
    return host.partition(":")[0].rstrip(".").lower()


def resolve_by_header(request: HttpRequest) -> str:
    """An opt-in resolver for services behind a gateway that sets ``X-Tenant-Id`` itself.

    Whoever can reach the service directly can name any tenant: the gateway must overwrite the
    header of its clients.
    """
    return str(request.META.get("HTTP_X_TENANT_ID", "")).lower()


class TenantContextMiddleware:
    """Finds the tenant of a request and binds it until the response is finished, sync and async.

    Unknown tenants get 404, deleted ones 410, unavailable ones 503: constant answers, made
    without touching any database. Routes in ``WHITELIST_ROUTES`` run unbound.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self.get_response = get_response
        self._resolve = _import_resolver()
        self._health = conf.middleware["HEALTH_PREFIX"]
        self._whitelist = frozenset(conf.middleware["WHITELIST_ROUTES"])
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)
        got_request_exception.connect(_note_unavailable, dispatch_uid="tenant_router.unavailable")
        response_log.install()
        log.keep_running()
        runtime.get().serve("web", asynchronous=self._is_async)
        metrics.register()

    def __call__(self, request: HttpRequest) -> Any:
        """Handle a request; in an async stack the answer is awaitable."""
        if self._is_async:
            return self._handle_async(request)
        if self._health and request.path_info.startswith(self._health):
            return health.answer(request, request.path_info.removeprefix(self._health))
        if self._whitelist and self._is_whitelisted(request):
            return self._handle_unbound(request)
        try:
            tenant_id = self._tenant_id(request)
            context = tenant_context_manager.serving.get(tenant_id) or _find_now(tenant_id)
        except TenantUnresolved as error:
            return refusal(error)
        before = _context.begin(context)
        mine, answered = _context.stack.get(), False
        request.META[REPORTED] = context.id
        try:
            response = _finish(request, self.get_response(request), mine)
            if response.status_code >= 400:
                response_log.log_bound(request, response)
            answered = True
            return response
        finally:
            _context.leave(before, ends=not answered)  # else when the response is closed

    async def _handle_async(self, request: HttpRequest) -> HttpResponseBase:
        get_response = cast("Callable[[HttpRequest], Awaitable[HttpResponseBase]]", self.get_response)
        if self._health and request.path_info.startswith(self._health):
            answer = sync_to_async(health.answer, thread_sensitive=False)  # it may ask databases
            return await answer(request, request.path_info.removeprefix(self._health))
        if self._whitelist and self._is_whitelisted(request):
            return await self._handle_unbound_async(request)
        try:
            tenant_id = self._tenant_id(request)
            serving = tenant_context_manager.serving.get(tenant_id) or tenant_context_manager.any_host
            context = serving or await _find(tenant_id)
        except TenantUnresolved as error:
            return refusal(error)
        before = _context.begin(context)
        mine, answered = _context.stack.get(), False
        request.META[REPORTED] = context.id
        try:
            response = _finish(request, await get_response(request), mine)
            if response.status_code >= 400:
                await response_log.alog_bound(request, response)
            answered = True
            return response
        finally:
            _context.leave(before, ends=not answered)  # else when the response is closed

    def _handle_unbound(self, request: HttpRequest) -> Any:
        before = _context.begin(None)
        try:
            return self.get_response(request)
        finally:
            _context.stack.set(before)

    async def _handle_unbound_async(self, request: HttpRequest) -> HttpResponseBase:
        before = _context.begin(None)
        try:
            return cast(HttpResponseBase, await self.get_response(request))
        finally:
            _context.stack.set(before)

    def _tenant_id(self, request: HttpRequest) -> str:
        chosen = _chosen_by_test(request) if _context.testing else None
        found = chosen or self._resolve(request)
        if not isinstance(found, str):
            path, kind = conf.middleware["TENANT_ID_RESOLVER"], type(found).__name__
            raise ConfigurationError(f"{MIDDLEWARE}['TENANT_ID_RESOLVER']: {path!r} returned {kind} and not text")
        return found

    def _is_whitelisted(self, request: HttpRequest) -> bool:
        try:
            match = resolve(request.path_info, getattr(request, "urlconf", None))
        except (Resolver404, TenantContextMissing):  # a path converter may ask the tenant's database
            return False
        return not self._whitelist.isdisjoint(names_of(match))


async def _find(tenant_id: str) -> TenantContext:
    # It may read the store, and a blocking read would stop the event loop.
    return await sync_to_async(_find_now, thread_sensitive=False)(tenant_id)


def _import_resolver() -> Callable[[HttpRequest], str]:
    path = conf.middleware["TENANT_ID_RESOLVER"]
    try:
        return cast("Callable[[HttpRequest], str]", import_string(path))
    except ImportError as error:
        raise ConfigurationError(f"{MIDDLEWARE}['TENANT_ID_RESOLVER']: cannot import {path!r}: {error}") from error


def _chosen_by_test(request: HttpRequest) -> str | None:
    """The tenant that a test's client names, whatever the project resolves by."""
    return request.META.get(TEST_KEY) or getattr(request, "scope", {}).get(TEST_KEY)


def _find_now(tenant_id: str) -> TenantContext:
    try:
        return tenant_context_manager.get_by_id(tenant_id)
    except TenantNotFound:
        if tenant_context_manager.any_host is not None:
            return tenant_context_manager.any_host
        raise


def _finish(request: HttpRequest, response: HttpResponseBase, mine: Stack) -> HttpResponseBase:
    if response.status_code == 500 and hasattr(request, _UNAVAILABLE):
        refused = refusal(getattr(request, _UNAVAILABLE))
        refused._resource_closers += response._resource_closers  # type: ignore[attr-defined]
        response = refused
    if isinstance(response, StreamingHttpResponse):
        bind_streaming(response, mine)
    bind_closing(response, mine)
    return response


def _note_unavailable(request: HttpRequest | None = None, **kwargs: Any) -> None:
    """Remember that a request failed because its tenant cannot be served, before it becomes a 500."""
    error = sys.exc_info()[1]
    if request is None or error is None:
        return
    if isinstance(error, TenantUnavailable):
        setattr(request, _UNAVAILABLE, error)
    elif getattr(error.__cause__, "tenant_database_unreachable", False):
        bound = _context.current()
        tenant_id = bound.id if bound else ""
        setattr(
            request, _UNAVAILABLE, TenantUnavailable(f"a database of tenant {tenant_id!r} is unreachable", tenant_id)
        )
