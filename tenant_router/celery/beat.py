"""Celery beat with tenants: a schedule entry runs once for each tenant of its scope.

``CELERY_BEAT_SCHEDULER = "tenant_router.celery.beat:TenantScheduler"``, and an entry says for
whom it is, in the headers of its options: ``{"tenant_scope": "all"}``, ``"label:gold"`` or a
list of tenant ids. Nothing is expanded beforehand: when the entry is due, the tenants that are
active at that moment each get a task of their own, spread over some time by a hash.

Every task is claimed in the config store before it is sent. So it is sent once, also by a run
that two beats share, or that a beat continues after a restart.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from types import FrameType
from typing import TYPE_CHECKING, Any

from celery.beat import PersistentScheduler

from tenant_router import runtime
from tenant_router.celery.fan_out import ScheduledRun, entry_for_tenant, scheduled_run, scope_of, tenants_of
from tenant_router.exceptions import ConfigurationError

if TYPE_CHECKING:
    from celery.beat import Scheduler as _Base
else:
    _Base = object

logger = logging.getLogger(__name__)

CHUNK_SIZE = 100  # tasks sent before other entries have their turn
CLAIM_TTL = 600.0  # seconds for which the claims of a run outlive it, or two of its periods
FINISHED_TTL = 86_400.0  # seconds for which it is remembered that a run is over
RETRY_INTERVAL = 1.0  # seconds between two attempts while the broker or the store is away
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_UNFINISHED = "beat"  # the claims under this name are the unfinished runs


class TenantFanOut(_Base):  # type: ignore[misc]
    """Mix into a scheduler: entries with a scope fan out, all others are the scheduler's own."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._runs: deque[ScheduledRun] = deque()
        self._resumed = False
        super().__init__(*args, **kwargs)

    def apply_async(self, entry: Any, producer: Any = None, advance: bool = True, **kwargs: Any) -> Any:
        """Note that an entry with a scope is due; send any other."""
        if scope_of(entry) is None:
            return super().apply_async(entry, producer=producer, advance=advance, **kwargs)
        run = scheduled_run(entry)
        if advance:
            self.reserve(entry)
        self._runs.append(run)
        return None

    def tick(self, *args: Any, **kwargs: Any) -> float:
        """Send a chunk of what is due, then let the scheduler look for more. Returns seconds until the next call."""
        with _deferred_signals() as signals:
            pause = self._send_due(signals)
            following: float = super().tick(*args, **kwargs)
        return min(following, pause) if self._runs else following

    def _do_sync(self) -> None:
        """Save the schedule, as Celery does from time to time between two ticks."""
        with _deferred_signals():
            super()._do_sync()

    def _send_due(self, signals: list[int]) -> float:
        try:
            self._resume()
            if self._runs:
                self._send_chunk(self._runs[0], signals)
        except Exception as error:
            if not self._runs or not self._runs[0].delayed:
                logger.exception("beat: sending is delayed: %s", error)
            for run in self._runs:
                run.delayed = True
            return RETRY_INTERVAL
        return 0.0

    def _resume(self) -> None:
        """Once: continue the runs that an earlier beat has not finished."""
        if self._resumed:
            return
        entries = {entry.name: entry for entry in self.schedule.values()}
        for name in sorted(_claims().claimed(_UNFINISHED)):
            entry_name, _, due = name.rpartition("@")
            entry = entries.get(entry_name)
            if entry is None or scope_of(entry) is None:
                _claims().release(_UNFINISHED, name)
            else:
                self._runs.append(scheduled_run(entry, datetime.fromisoformat(due)))
        self._resumed = True

    def _send_chunk(self, run: ScheduledRun, signals: list[int]) -> None:
        if run.waiting is None and not _start_run(run):
            self._runs.popleft()
            return
        for _ in range(min(CHUNK_SIZE, len(run.waiting or ()))):
            if signals:
                return
            self._send(run)
        if not run.waiting:
            _finish_run(run)
            self._runs.popleft()

    def _send(self, run: ScheduledRun) -> None:
        """Send the task of the first who waits, who stays the first if it fails."""
        assert run.waiting
        tenant_id = run.waiting[0]
        claims, name = _claims(), f"{_UNFINISHED}:{run.name}"
        if claims.claim(name, tenant_id, max(CLAIM_TTL, 2 * run.period), run.claimant):
            try:
                super().apply_async(entry_for_tenant(run, tenant_id), producer=self.producer, advance=False)
            except Exception:
                claims.release(name, tenant_id)
                raise
            run.sent += 1
        else:
            run.before += 1
        run.waiting.popleft()


class TenantScheduler(TenantFanOut, PersistentScheduler):  # type: ignore[misc]
    """Celery's own scheduler, with tenants."""


@contextmanager
def _deferred_signals() -> Iterator[list[int]]:
    """Defer the first SIGTERM or SIGINT; yields the list of those that came. A second one acts at once.

    Beat ends by an exception from its handler, which must not part a claim from its task. And the handler saves
    the schedule: in the middle of a statement it would replace that connection, and wait in vain for its lock.
    A mask would not do: the kernel hands the signal to another thread, and Python runs the handler in this one.
    """
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield came
        return

    def defer(number: int, frame: FrameType | None) -> None:
        if not came:
            came.append(number)
            return
        came.clear()
        _call_handler(handlers[number], number, frame)

    handlers: dict[int, Any] = {number: signal.getsignal(number) for number in _STOP_SIGNALS}
    for number in handlers:
        signal.signal(number, defer)
    try:
        yield came
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if came:
            _call_handler(handlers[came[0]], came[0], None)


def _call_handler(handler: Any, number: int, frame: FrameType | None) -> None:
    """Do what ``handler`` of this signal would have done."""
    if callable(handler):
        handler(number, frame)
    elif handler is signal.SIG_DFL:
        signal.signal(number, handler)
        signal.raise_signal(number)


def _start_run(run: ScheduledRun) -> bool:
    """Find the tenants that are to have a task; ``False`` when the run is over already."""
    claims = _claims()
    if claims.claimed(f"{_UNFINISHED}:{run.name}:done"):
        return False
    claims.claim(_UNFINISHED, run.name, FINISHED_TTL)
    tenant_ids = tenants_of(run)
    run.tenants = len(tenant_ids)
    run.waiting = deque(tenant_ids)
    return True


def _finish_run(run: ScheduledRun) -> None:
    claims = _claims()
    claims.claim(f"{_UNFINISHED}:{run.name}:done", "done", FINISHED_TTL)
    claims.release(_UNFINISHED, run.name)
    remarks = "".join(f"; {remark}" for remark in run.remarks)
    logger.log(
        logging.WARNING if run.remarks else logging.INFO,
        "beat: %s due at %s: %d tenants, %d tasks sent, %d had been sent before, spread over %.1f s%s",
        run.entry.name,
        run.due.isoformat(),
        run.tenants,
        run.sent,
        run.before,
        run.spread,
        remarks,
    )


def _claims() -> Any:
    """The config store, which keeps the claims."""
    store = runtime.get().store
    if not store.keeps_claims:
        raise ConfigurationError(f"{type(store).__name__} keeps no claims, which beat needs: see config_store.base")
    return store
