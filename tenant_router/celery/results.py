"""Results lie with their tenant, and a result whose tenant cannot be bound is logged and dropped.

Facts relied on, each with a test: ``Backend.store_result`` is where every state of a task is stored, by its worker or
on its behalf; a failure is handed on by ``_fail_chain`` (to the links that will not run), ``_call_task_errbacks`` and
``chord_error_from_stack`` (to a chord's body), which act for signatures that may be other tenants'. A result that was
read is kept in ``Backend._cache`` by its task's id alone.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any

from celery.backends.base import Backend

from tenant_router import context as _context
from tenant_router.celery import patching
from tenant_router.celery.binding import bound
from tenant_router.celery.headers import tenant_of
from tenant_router.exceptions import TenantRouterError

logger = logging.getLogger(__name__)


def connect() -> None:
    """Have every result backend keep to the tenants."""
    patching.replace(Backend, "__init__", _kept_by_tenant)
    patching.replace(Backend, "store_result", _dropped_if_denied)
    patching.replace(Backend, "_fail_chain", _each_link_for_its_tenant)
    patching.replace(Backend, "_call_task_errbacks", _each_errback_as_its_tenant)
    patching.replace(Backend, "chord_error_from_stack", _for_the_body)


class KeptResults:
    """The results that a backend has read, by tenant and task; in the place of Celery's cache, which it fills."""

    def __init__(self, cache: Any) -> None:
        self._cache = cache

    def _key(self, task_id: Any) -> tuple[str | None, Any]:
        context = _context.current()
        return (context.id if context else None), task_id

    def __contains__(self, task_id: Any) -> bool:
        return self._key(task_id) in self._cache

    def __getitem__(self, task_id: Any) -> Any:
        return self._cache[self._key(task_id)]

    def __setitem__(self, task_id: Any, meta: Any) -> None:
        self._cache[self._key(task_id)] = meta

    def pop(self, task_id: Any, *default: Any) -> Any:
        """Forget one of the bound tenant's."""
        return self._cache.pop(self._key(task_id), *default)

    def update(self, found: dict[Any, Any]) -> None:
        """Keep what was read for the bound tenant."""
        self._cache.update({self._key(task_id): meta for task_id, meta in found.items()})

    def clear(self) -> None:
        """Forget all."""
        self._cache.clear()


def _kept_by_tenant(init: Any) -> Any:
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        self._cache = KeptResults(self._cache)

    return __init__


def _dropped_if_denied(store_result: Any) -> Any:
    def store(self: Any, task_id: Any, result: Any, state: str, *args: Any, **kwargs: Any) -> Any:
        try:
            return store_result(self, task_id, result, state, *args, **kwargs)
        except TenantRouterError as error:
            logger.error("the result %s of task %s is dropped: %s", state, task_id, error)
            return result

    return store


def _each_link_for_its_tenant(fail_chain: Any) -> Any:
    def fail(self: Any, chain: Any, *args: Any, **kwargs: Any) -> None:
        if not isinstance(chain, list | tuple):
            fail_chain(self, chain, *args, **kwargs)
            return
        for tenant_id, links in _by_tenant(chain):
            with bound(tenant_id):
                fail_chain(self, links, *args, **kwargs)

    return fail


def _each_errback_as_its_tenant(call: Any) -> Any:
    def call_each(self: Any, request: Any, exc: Any, traceback: Any) -> None:
        errbacks = request.errbacks
        try:
            for tenant_id, own in _by_tenant(errbacks):
                request.errbacks = own
                with bound(tenant_id):
                    call(self, request, exc, traceback)
        finally:
            request.errbacks = errbacks

    return call_each


def _for_the_body(chord_error: Any) -> Any:
    def for_body(self: Any, callback: Any, *args: Any, **kwargs: Any) -> Any:
        with bound(tenant_of(callback)):
            return chord_error(self, callback, *args, **kwargs)

    return for_body


def _by_tenant(signatures: Iterable[Any]) -> Iterator[tuple[str | None, list[Any]]]:
    for tenant_id, own in groupby(signatures, tenant_of):
        yield tenant_id, list(own)
