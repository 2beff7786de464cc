"""Binds a task's tenant around its tracer, which is everything that a worker does with a task where its body runs.

Celery makes one tracer for each task, by ``celery.app.trace.build_tracer``: the consumer and the children of a
prefork worker for messages, ``Task.apply`` for an eager task. Within it lie the receivers of ``task_prerun`` and
``task_postrun``, whenever they were connected, the result, the callbacks, the next link of a chain, and the cleanup.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tenant_router import context as _context
from tenant_router.celery import binding, cleanup, guard, patching
from tenant_router.celery.headers import REVISION, TENANT, headers_of
from tenant_router.exceptions import TransactionOpen
from tenant_router.tenant_context import DeniedContext, TenantContext

Trace = Callable[..., Any]


def bound_tracers(build_tracer: Callable[..., Trace]) -> Callable[..., Trace]:
    """A ``build_tracer`` whose tracers bind the tenant."""

    def build(name: str, task: Any, *args: Any, eager: bool = False, **kwargs: Any) -> Trace:
        if name == cleanup.TASK:
            cleanup.fan_out_where_needed(task)
        if not patching.is_ours(task.__class__.before_start):
            guard.guard(task)
        trace = build_tracer(name, task, *args, eager=eager, **kwargs)
        return _nested(trace) if eager else _at_the_door(trace)

    return build


def _at_the_door(trace: Trace) -> Trace:
    """A message on a worker: a unit of its own, whatever a task before it has left bound in this thread."""

    def trace_bound(uuid: str, args: Any, kwargs: Any, request: Any = None) -> Any:
        outer = _context.stack.get()
        if outer:  # of a pool that runs tasks where messages arrive
            _context.stack.set(())
        _context.begin(_named(request or {}))
        try:
            return trace(uuid, args, kwargs, request)
        finally:
            binding.leave(())
            if outer:
                _context.stack.set(outer)

    return trace_bound


def _nested(trace: Trace) -> Trace:
    """An eager task: it inherits what is bound, unless it names a tenant of its own."""

    def trace_bound(uuid: str, args: Any, kwargs: Any, request: Any = None) -> Any:
        before, named = _context.stack.get(), _named(request or {})
        if named is not None:
            try:
                _context.enter(named)
            except TransactionOpen as error:  # for another tenant than the one whose transaction is open
                _context.stack.set((*before, DeniedContext(named.id, error)))
        try:
            return trace(uuid, args, kwargs, request)
        finally:
            after = _context.stack.get()
            if after is not before and len(after) != len(before):  # also of what the task has pushed and not popped
                binding.leave(before)

    return trace_bound


def _named(request: Any) -> TenantContext | None:
    named = headers_of(request)
    tenant_id = named.get(TENANT)
    if tenant_id is None:
        return None
    return binding.find(str(tenant_id), named.get(REVISION), binding.wait_for)
