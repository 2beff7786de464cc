"""Celery beat with tenants: one entry runs once for each tenant of its scope.

``CELERY_BEAT_SCHEDULER = "tenant_router.celery.beat:TenantScheduler"``, and an entry says for
whom it is, in the headers of its options: ``{"tenant_scope": "all"}``, ``"label:gold"`` or a
list of tenant ids. Nothing is expanded beforehand: when the entry is due, the tenants that are
active at that moment each get a task of their own, spread over some time by a hash.

Every task is claimed in the config store before it is sent, so a firing that two beats share,
or that a beat goes on with after a restart, sends it once.
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
from tenant_router.celery.fan_out import Firing, fired, for_tenant, scope_of, tenants_of
from tenant_router.exceptions import ConfigurationError

if TYPE_CHECKING:
    from celery.beat import Scheduler as _Base
else:
    _Base = object

logger = logging.getLogger(__name__)

CHUNK = 100  # tasks sent before other entries have their turn
KEPT = 600.0  # seconds for which the claims of a firing outlive it, or two of its periods
KEPT_DONE = 86_400.0  # seconds for which it is known that a firing is over
PAUSE = 1.0  # seconds between two attempts while the broker or the store is away
_ENDING = (signal.SIGTERM, signal.SIGINT)
_OPEN = "beat"  # the claims of this name are the firings that are not over


class TenantFanOut(_Base):  # type: ignore[misc]
    """Mix into a scheduler: entries with a scope fan out, all others are the scheduler's own."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._firings: deque[Firing] = deque()
        self._resumed = False
        super().__init__(*args, **kwargs)

    def apply_async(self, entry: Any, producer: Any = None, advance: bool = True, **kwargs: Any) -> Any:
        """Note that an entry with a scope is due; send any other."""
        if scope_of(entry) is None:
            return super().apply_async(entry, producer=producer, advance=advance, **kwargs)
        firing = fired(entry)
        if advance:
            self.reserve(entry)
        self._firings.append(firing)
        return None

    def tick(self, *args: Any, **kwargs: Any) -> float:
        """Send a chunk of what is due, then let the scheduler look for more. Returns seconds until the next call."""
        with _undisturbed() as signals:
            pause = self._go_on(signals)
            following: float = super().tick(*args, **kwargs)
        return min(following, pause) if self._firings else following

    def _do_sync(self) -> None:
        """Save the schedule, as Celery does from time to time between two ticks."""
        with _undisturbed():
            super()._do_sync()

    def _go_on(self, signals: list[int]) -> float:
        try:
            self._resume()
            if self._firings:
                self._send_chunk(self._firings[0], signals)
        except Exception as error:
            if not self._firings or not self._firings[0].delayed:
                logger.exception("beat: sending is delayed: %s", error)
            for firing in self._firings:
                firing.delayed = True
            return PAUSE
        return 0.0

    def _resume(self) -> None:
        """Once: go on with firings that a beat has left when it ended."""
        if self._resumed:
            return
        entries = {entry.name: entry for entry in self.schedule.values()}
        for name in sorted(_claims().claimed(_OPEN)):
            entry_name, _, due = name.rpartition("@")
            entry = entries.get(entry_name)
            if entry is None or scope_of(entry) is None:
                _claims().release(_OPEN, name)
            else:
                self._firings.append(fired(entry, datetime.fromisoformat(due)))
        self._resumed = True

    def _send_chunk(self, firing: Firing, signals: list[int]) -> None:
        if firing.waiting is None and not _begun(firing):
            self._firings.popleft()
            return
        for _ in range(min(CHUNK, len(firing.waiting or ()))):
            if signals:
                return
            self._send(firing)
        if not firing.waiting:
            _ended(firing)
            self._firings.popleft()

    def _send(self, firing: Firing) -> None:
        """Send the task of the first who waits, who stays the first if it fails."""
        assert firing.waiting
        tenant_id = firing.waiting[0]
        claims, name = _claims(), f"{_OPEN}:{firing.name}"
        if claims.claim(name, tenant_id, max(KEPT, 2 * firing.period), firing.claimant):
            try:
                super().apply_async(for_tenant(firing, tenant_id), producer=self.producer, advance=False)
            except Exception:
                claims.release(name, tenant_id)
                raise
            firing.sent += 1
        else:
            firing.before += 1
        firing.waiting.popleft()


class TenantScheduler(TenantFanOut, PersistentScheduler):  # type: ignore[misc]
    """Celery's own scheduler, with tenants."""


@contextmanager
def _undisturbed() -> Iterator[list[int]]:
    """Put off the first signal that ends beat; yields the list of those that came. A second one acts at once.

    Beat ends by an exception from its handler, which must not part a claim from its task. And the handler saves
    the schedule: in the middle of a statement it would replace that connection, and wait in vain for its lock.
    A mask would not do: the kernel hands the signal to another thread, and Python runs the handler in this one.
    """
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield came
        return

    def put_off(number: int, frame: FrameType | None) -> None:
        if not came:
            came.append(number)
            return
        came.clear()
        _handle(handlers[number], number, frame)

    handlers: dict[int, Any] = {number: signal.getsignal(number) for number in _ENDING}
    for number in handlers:
        signal.signal(number, put_off)
    try:
        yield came
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if came:
            _handle(handlers[came[0]], came[0], None)


def _handle(handler: Any, number: int, frame: FrameType | None) -> None:
    """Do what ``handler`` of this signal would have done."""
    if callable(handler):
        handler(number, frame)
    elif handler is signal.SIG_DFL:
        signal.signal(number, handler)
        signal.raise_signal(number)


def _begun(firing: Firing) -> bool:
    """Find out who is to have a task; ``False`` when the firing was over before."""
    claims = _claims()
    if claims.claimed(f"{_OPEN}:{firing.name}:done"):
        return False
    claims.claim(_OPEN, firing.name, KEPT_DONE)
    tenant_ids = tenants_of(firing)
    firing.tenants = len(tenant_ids)
    firing.waiting = deque(tenant_ids)
    return True


def _ended(firing: Firing) -> None:
    claims = _claims()
    claims.claim(f"{_OPEN}:{firing.name}:done", "done", KEPT_DONE)
    claims.release(_OPEN, firing.name)
    remarks = "".join(f"; {remark}" for remark in firing.remarks)
    logger.log(
        logging.WARNING if firing.remarks else logging.INFO,
        "beat: %s due at %s: %d tenants, %d tasks sent, %d had been sent before, spread over %.1f s%s",
        firing.entry.name,
        firing.due.isoformat(),
        firing.tenants,
        firing.sent,
        firing.before,
        firing.spread,
        remarks,
    )


def _claims() -> Any:
    """The config store, which keeps the claims."""
    store = runtime.get().store
    if not store.keeps_claims:
        raise ConfigurationError(f"{type(store).__name__} keeps no claims, which beat needs: see config_store.base")
    return store
