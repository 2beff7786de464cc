"""Connects what stands in this folder to Celery, and makes worker and beat processes servers."""

from __future__ import annotations

import sys
from typing import Any

from celery import signals
from celery.app import trace

from tenant_router import runtime
from tenant_router.celery import (
    chords,
    consumer,
    guard,
    patching,
    publishing,
    remote_commands,  # noqa: F401 - its task is known to every application from now on
    results,
    tracing,
)
from tenant_router.exceptions import BootError
from tenant_router.requests import metrics


def connect() -> None:
    """Connect the receivers, and have tasks bind their tenants; idempotent."""
    for signal, receiver in _RECEIVERS:
        signal.connect(receiver, weak=False, dispatch_uid=f"tenant_router.{receiver.__name__}")
    patching.replace(trace, "build_tracer", tracing.bound_tracers)
    guard.guard_all()
    chords.connect()
    results.connect()


def start_worker(sender: Any = None, **kwargs: Any) -> None:
    """``worker_init``: read the store. Changes are followed here, or by a prefork worker in its children."""
    pool = getattr(sender, "pool_cls", "prefork")
    prefork = "prefork" in (pool if isinstance(pool, str) else pool.__module__)
    _serve("celery", thread=not prefork)
    consumer.connect()


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
    (signals.before_task_publish, publishing.stamp),
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
