"""Binds a task's tenant around what a worker's main process does for it, where no body runs.

That is everything which a message causes when it arrives (``task_received`` and ``task_rejected``, an expired or
revoked task, a task that nobody knows), and everything which is reported of a task later: time limits, a child that
was lost, a revocation. The main process needs a tenant for few of its tasks, so that it is looked up at its first use.
No tenant's trouble ends a worker: what fails here for a tenant, or for its database, is logged and the task let go.
Facts relied on, each with a test: ``Consumer.create_task_handler`` makes what is called with each message;
``celery.worker.strategy`` makes the class of a task's requests by ``create_request_cls``, whose methods the pool calls.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import django.db

from tenant_router.celery import binding, patching, tracing
from tenant_router.exceptions import TenantRouterError

logger = logging.getLogger(__name__)

# The methods of a request that reach results or the application. Others do where an application's class has its own.
_REPORTED = frozenset({"on_timeout", "on_failure", "_announce_revoked", "_announce_cancelled"})
_OVERRIDDEN = frozenset({"on_accepted", "on_retry", "revoked", "terminate", "cancel", "acknowledge", "reject"})


def connect() -> None:
    """Have the consumers and requests of this process bind tenants. They are imported in workers only."""
    from celery.worker import strategy
    from celery.worker.consumer import consumer

    patching.replace(consumer, "build_tracer", tracing.bound_tracers)  # it has imported the name, perhaps before us
    patching.replace(consumer.Consumer, "create_task_handler", _bound_handlers)
    patching.replace(strategy, "create_request_cls", _bound_requests)


def _bound_handlers(create_task_handler: Any) -> Any:
    def create(self: Any, *args: Any, **kwargs: Any) -> Callable[[Any], None]:
        handle = create_task_handler(self, *args, **kwargs)

        def on_task_received(message: Any) -> None:
            before = binding.bind_late(message.headers or {})
            try:
                handle(message)
            except (TenantRouterError, django.db.Error) as error:
                logger.exception("a message of task %s is dropped: %s", (message.headers or {}).get("id"), error)
            finally:
                binding.leave(before)

        return on_task_received

    return create


def _bound_requests(create_request_cls: Any) -> Any:
    def create(base: Any, task: Any, *args: Any, **kwargs: Any) -> type:
        made = create_request_cls(base, task, *args, **kwargs)
        names = _REPORTED | {name for name in _OVERRIDDEN if not _is_celerys(base, name)}
        return type(made.__name__, (made,), {name: _bound(getattr(made, name)) for name in names})

    return create


def _is_celerys(base: Any, name: str) -> bool:
    from celery.worker.request import Request

    return getattr(base, name) is getattr(Request, name)


def _bound(method: Any) -> Any:
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        before = binding.bind_late(self.request_dict)
        try:
            return method(self, *args, **kwargs)
        except (TenantRouterError, django.db.Error) as error:
            logger.exception("task %s[%s] is let go: %s", self.name, self.id, error)
            self.acknowledge()
        finally:
            binding.leave(before)

    return patching.marked(method, call)
