"""Keeps the body of a task from running whose tenant cannot be bound: it is sent again later, or fails visibly.

Facts relied on, each with a test: ``before_start`` is the last thing that Celery calls before a task's body, and
outside of what swallows exceptions; replaced on the base class it is called, and on a task whose class has its own.
"""

from __future__ import annotations

import functools
import logging
import random
from typing import Any

from celery.app.task import Task
from celery.exceptions import Reject, Retry

from tenant_router import context as _context
from tenant_router.celery import patching
from tenant_router.celery.headers import TRIES
from tenant_router.exceptions import TenantNotFound, TenantUnavailable
from tenant_router.tenant_context import DeniedContext

logger = logging.getLogger(__name__)

RETRIES = {TenantNotFound: 5, TenantUnavailable: 10}  # how often a task is sent again; others fail at once
MAX_COUNTDOWN = 60  # seconds


def guard_all() -> None:
    """Guard every task whose class has no ``before_start`` of its own."""
    patching.replace(Task, "before_start", _guarded)


def guard(task: Any) -> None:
    """Guard a task whose class has a ``before_start`` of its own, which need not call ours. Idempotent."""
    patching.replace(task, "before_start", lambda own: functools.partial(_guarded(lambda _, *call: own(*call)), task))


def _guarded(before_start: Any) -> Any:
    def before(self: Any, task_id: str, args: Any, kwargs: Any) -> None:
        bound = _context.stack.get()
        if bound and isinstance(bound[-1], DeniedContext):
            _refuse(self, bound[-1])
        before_start(self, task_id, args, kwargs)

    return before


def _refuse(task: Any, denied: DeniedContext) -> None:
    """Try again later what may become possible; fail visibly what will not."""
    error, tries = denied.error, (task.request.headers or {}).get(TRIES)
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
