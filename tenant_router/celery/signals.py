"""Receivers of Celery's signals: a task runs bound to its publisher's tenant; workers and beat follow the store.

The header ``tenant_id`` is the whole protocol, so a client that is not Django can publish.
Facts relied on, each with a test: ``task_prerun`` is sent with ``task.request`` already pushed
and its exceptions are swallowed; ``task_postrun`` is sent from a ``finally``; custom headers
are attributes of ``task.request``, and of an eager one, which publishes nothing, in its ``headers``.
"""

from __future__ import annotations

import logging
import random
import sys
import time
from typing import Any

from celery import signals
from celery.app.task import Task
from celery.exceptions import Reject, Retry

from tenant_router import context as _context
from tenant_router import runtime
from tenant_router.context import DeniedContext, TenantContext
from tenant_router.context_decorators import resolve
from tenant_router.exceptions import (
    BootError,
    TenantNotFound,
    TenantNotLoaded,
    TenantRouterError,
    TenantUnavailable,
    TransactionOpen,
)
from tenant_router.managers import tenant_context_manager
from tenant_router.requests import metrics

logger = logging.getLogger(__name__)

TENANT, REVISION, TRIES = "tenant_id", "tenant_revision", "tenant_tries"  # message headers
CATCH_UP = 1.0  # seconds that a worker waits for the revision on which a task was published
RETRIES = {TenantNotFound: 5, TenantUnavailable: 10}  # how often a task is sent again; others fail at once
MAX_COUNTDOWN = 60  # seconds
_BEFORE = "_tenant_router_before"
_GUARD = "_tenant_router_guard"


def connect() -> None:
    """Connect the receivers and the guard; idempotent."""
    for signal, receiver in _RECEIVERS:
        signal.connect(receiver, weak=False, dispatch_uid=f"tenant_router.{receiver.__name__}")
    if not hasattr(Task.before_start, _GUARD):
        Task.before_start = _guarded(Task.before_start)


def stamp(headers: dict[str, Any] | None = None, **kwargs: Any) -> None:
    """``before_task_publish``: name the bound tenant in the message, unless the publisher named one."""
    bound = _context.current()
    if headers is not None and bound is not None and headers.get(TENANT) is None:
        headers[TENANT], headers[REVISION] = bound.id, bound.revision


def bind(task: Any = None, **kwargs: Any) -> None:
    """``task_prerun``: bind the tenant of the message, or a context that denies everything."""
    request = task.request  # a look-up of Celery's, of four calls
    tenant_id = _header(request, TENANT)
    if tenant_id is None:
        # An eager task inherits what is bound; on a worker nothing is, and a central task needs nothing.
        return
    before = _context.stack.get()
    try:
        _context.enter(_resolve(str(tenant_id), _header(request, REVISION)))
    except TransactionOpen as error:  # an eager task for another tenant than the one whose transaction is open
        _context.stack.set((*before, DeniedContext(str(tenant_id), error)))
    setattr(request, _BEFORE, before)


def unbind(task: Any = None, **kwargs: Any) -> None:
    """``task_postrun``: restore what was bound before."""
    request = task.request
    before = getattr(request, _BEFORE, None)
    if before is not None:
        delattr(request, _BEFORE)
        _context.leave(before)


def start_worker(sender: Any = None, **kwargs: Any) -> None:
    """``worker_init``: read the store. Changes are followed here, or by a prefork worker in its children."""
    pool = getattr(sender, "pool_cls", "prefork")
    prefork = "prefork" in (pool if isinstance(pool, str) else pool.__module__)
    _serve("celery", thread=not prefork)
    for task in sender.app.tasks.values():
        if not hasattr(type(task).before_start, _GUARD):
            task.before_start = _guarded(task.before_start).__get__(task)


def start_child(**kwargs: Any) -> None:
    """``worker_process_init``, ``beat_embedded_init``: go on from what the main process has read."""
    runtime.get().follow()


def end_child(**kwargs: Any) -> None:
    """``worker_process_shutdown``: the children of a prefork worker end without running ``atexit`` handlers."""
    runtime.get().leave()


def start_beat(**kwargs: Any) -> None:
    """``beat_init``: read the store and follow it."""
    _serve("beat", thread=True)


_RECEIVERS = (
    (signals.before_task_publish, stamp),
    (signals.task_prerun, bind),
    (signals.task_postrun, unbind),
    (signals.worker_init, start_worker),
    (signals.worker_process_init, start_child),
    (signals.worker_process_shutdown, end_child),
    (signals.beat_embedded_init, start_child),
    (signals.beat_init, start_beat),
)


def _serve(role: str, *, thread: bool) -> None:
    try:
        runtime.get().serve(role, thread=thread)
    except BootError as error:
        # Celery logs and swallows an Exception from a receiver, and would start all the same.
        sys.exit(f"tenant_router: {error}")
    metrics.register()


def _header(request: Any, name: str) -> Any:
    found = getattr(request, name, None)
    return (request.headers or {}).get(name) if found is None else found


def _resolve(tenant_id: str, revision: Any) -> TenantContext:
    try:
        revision = revision if isinstance(revision, int) else 0
        behind = 0 < tenant_context_manager.revision_of(tenant_id) < revision  # what was deleted may live again
        context = _caught_up(tenant_id, revision) if behind else resolve(tenant_id)
        if context.revision < revision:
            context = _caught_up(tenant_id, revision)
    except TenantRouterError as error:
        return DeniedContext(tenant_id, error)
    except Exception as error:
        logger.exception("binding tenant %s failed", tenant_id)
        return DeniedContext(tenant_id, TenantNotLoaded(f"tenant {tenant_id!r} cannot be bound: {error}", tenant_id))
    return context


def _caught_up(tenant_id: str, revision: int) -> TenantContext:
    """Wait until this process has what the publisher had; a record that was refused here does not come."""
    reflector = runtime.get().reflector
    deadline = time.monotonic() + CATCH_UP
    while time.monotonic() < deadline:
        known = tenant_context_manager.revision_of(tenant_id)
        if known >= revision or (reflector.head is not None and reflector.head.rev >= revision):
            return resolve(tenant_id)
        time.sleep(0.01)
    if reflector.ready and runtime.get().records.refresh(tenant_id):
        return resolve(tenant_id)  # the store's latest; if that is older still, its history is another one
    raise TenantNotLoaded(f"revision {revision} of tenant {tenant_id!r} has not arrived here", tenant_id)


def _guarded(before_start: Any) -> Any:
    """Wrap ``before_start``, the last thing Celery calls before a task's body, outside of the swallowing signals."""

    def guard(self: Any, task_id: str, args: Any, kwargs: Any) -> None:
        bound = _context.current()
        if isinstance(bound, DeniedContext):
            _refuse(self, bound)
        original = getattr(before_start, "__func__", before_start)
        original(self, task_id, args, kwargs)

    setattr(guard, _GUARD, True)
    return guard


def _refuse(task: Any, denied: DeniedContext) -> None:
    """Try again later what may become possible; fail visibly what will not."""
    error, tries = denied.error, _header(task.request, TRIES)
    tries = tries if isinstance(tries, int) else 0
    again = tries < next((count for kind, count in RETRIES.items() if isinstance(error, kind)), 0)
    logger.warning(
        "task %s[%s] of tenant %s is %s: %s",
        task.name,
        task.request.id,
        denied.id,
        "retried later" if again else "refused",
        error,
        extra={"tenant_id": denied.id},
    )
    if not again:
        raise error
    raise _sent_again(task, error, tries + 1)


def _sent_again(task: Any, error: Exception, tries: int) -> Retry:
    """Do what ``task.retry`` does, which would use up the task's own retries and change its limit of them."""
    request, countdown = task.request, min(MAX_COUNTDOWN, 2 ** (tries - 1)) * random.uniform(0.75, 1.25)
    headers = {**(request.headers or {}), TRIES: tries}
    signature = task.signature_from_request(request, headers=headers, countdown=countdown, retries=request.retries)
    if not request.is_eager:
        try:
            signature.apply_async()
        except Exception as failure:
            raise Reject(failure, requeue=False) from failure
    return Retry(exc=error, when=countdown, is_eager=request.is_eager, sig=signature)
