"""Finds the tenant that a message names, and binds it: at once around a task, late around what may not need it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from tenant_router import context as _context
from tenant_router import runtime
from tenant_router.celery.headers import REVISION, TENANT, headers_of
from tenant_router.context import Stack
from tenant_router.context_decorators import resolve
from tenant_router.exceptions import TenantNotLoaded, TenantRouterError, TransactionOpen
from tenant_router.managers import tenant_context_manager
from tenant_router.tenant_context import DeniedContext, LateContext, TenantContext

logger = logging.getLogger(__name__)

CATCH_UP = 1.0  # seconds that a worker waits for the revision on which a task was published


def find(tenant_id: str, revision: Any, caught_up: Callable[[str, int], TenantContext]) -> TenantContext:
    """The tenant at ``revision`` or later, for which ``caught_up`` is asked, or one that denies everything.

    Never raises: the door of a task is no place from which an error would reach anybody.
    """
    try:
        revision = revision if isinstance(revision, int) else 0
        behind = 0 < tenant_context_manager.revision_of(tenant_id) < revision  # what was deleted may live again
        context = caught_up(tenant_id, revision) if behind else resolve(tenant_id)
        if context.revision < revision:
            context = caught_up(tenant_id, revision)
    except TenantRouterError as error:
        return DeniedContext(tenant_id, error)
    except Exception as error:
        logger.exception("binding tenant %s failed", tenant_id)
        return DeniedContext(tenant_id, TenantNotLoaded(f"tenant {tenant_id!r} cannot be bound: {error}", tenant_id))
    return context


def wait_for(tenant_id: str, revision: int) -> TenantContext:
    """Wait until this process has what the publisher had; a record that was refused here does not come."""
    reflector = runtime.get().reflector
    deadline = time.monotonic() + CATCH_UP
    while time.monotonic() < deadline:
        known = tenant_context_manager.revision_of(tenant_id)
        if known >= revision or (reflector.head is not None and reflector.head.rev >= revision):
            return resolve(tenant_id)
        time.sleep(0.01)
    if reflector.ready:
        return read(tenant_id, revision)
    raise _has_not_arrived(tenant_id, revision)


def read(tenant_id: str, revision: int) -> TenantContext:
    """The tenant as the store has it now; if that is older than ``revision``, its history is another one."""
    if runtime.get().records.refresh(tenant_id):
        return resolve(tenant_id)
    raise _has_not_arrived(tenant_id, revision)


def bind_late(request: Any) -> Stack:
    """Bind what a message names for what Celery does with it, other than to run it; the stack for :func:`leave`."""
    named = headers_of(request)
    tenant_id, revision = named.get(TENANT), named.get(REVISION)
    if tenant_id is None:
        return _context.bind_late(None)
    tenant_id = str(tenant_id)
    return _context.bind_late(LateContext(tenant_id, partial(_find_in_main_process, tenant_id, revision)))


def _find_in_main_process(tenant_id: str, revision: Any) -> TenantContext:
    before = _context.begin(None)  # else the tenant would be looked for in itself
    try:
        runtime.get().catch_up()  # a prefork worker's has no thread that follows the store
        return find(tenant_id, revision, read)
    finally:
        _context.stack.set(before)


def leave(before: Stack) -> None:
    """Restore what was bound before. A transaction that was left open has been rolled back, which is logged."""
    try:
        _context.leave(before)
    except TransactionOpen as error:
        logger.error("%s", error)


@contextmanager
def bound(tenant_id: str | None) -> Iterator[None]:
    """Run a block as ``tenant_id``, if that is another tenant than the bound one; ``None`` is whoever is bound."""
    current = _context.current()
    if tenant_id is None or (current is not None and current.id == tenant_id):
        yield
        return
    before = _context.enter(find(tenant_id, None, wait_for))
    try:
        yield
    finally:
        leave(before)


def _has_not_arrived(tenant_id: str, revision: int) -> TenantNotLoaded:
    return TenantNotLoaded(f"revision {revision} of tenant {tenant_id!r} has not arrived here", tenant_id)
