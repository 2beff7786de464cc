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
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from hashlib import blake2b
from types import FrameType, SimpleNamespace
from typing import TYPE_CHECKING, Any

from celery.beat import PersistentScheduler

from tenant_router import runtime
from tenant_router.celery.signals import TENANT
from tenant_router.config_store import codec
from tenant_router.config_store.base import ACTIVE, STATE_NAMES
from tenant_router.exceptions import ConfigurationError, SerializerError
from tenant_router.managers import tenant_context_manager

if TYPE_CHECKING:
    from celery.beat import ScheduleEntry
    from celery.beat import Scheduler as _Base
else:
    _Base = object

logger = logging.getLogger(__name__)

SCOPE, SPREAD = "tenant_scope", "tenant_spread"  # headers of an entry
FIRING = "tenant_firing"  # header of a task: the entry and when it was due, the same for all tasks of one firing
LONGEST_SPREAD = 60.0  # seconds, unless an entry says otherwise
SHARE = 0.1  # of the time to the entry's next firing over which its tasks are spread
CHUNK = 100  # tasks sent before other entries have their turn
PAGE = 500  # records read at once to find labels
KEPT = 600.0  # seconds for which the claims of a firing outlive it, or two of its periods
KEPT_DONE = 86_400.0  # seconds for which it is known that a firing is over
PAUSE = 1.0  # seconds between two attempts while the broker or the store is away
_ENDING = (signal.SIGTERM, signal.SIGINT)
_OPEN = "beat"  # the claims of this name are the firings that are not over


@dataclass
class Firing:
    """One time that an entry was due: who still waits for a task, and what happened so far."""

    entry: Any
    due: datetime
    name: str
    period: float
    spread: float
    waiting: deque[str] | None = None
    tenants: int = 0
    sent: int = 0
    before: int = 0
    remarks: list[str] = field(default_factory=list)
    delayed: bool = False

    def countdown(self, tenant_id: str) -> float:
        """Seconds from now until the tenant's task may start: its own place within the spread, always the same."""
        place = int.from_bytes(blake2b(f"{tenant_id}\0{self.entry.name}".encode(), digest_size=7).digest(), "big")
        offset = place / 2**56 * self.spread
        return max(0.0, self.due.timestamp() + offset - time.time())


class TenantFanOut(_Base):  # type: ignore[misc]
    """Mix into a scheduler: entries with a scope fan out, all others are the scheduler's own."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._firings: deque[Firing] = deque()
        self._resumed = False
        super().__init__(*args, **kwargs)

    def apply_async(self, entry: Any, producer: Any = None, advance: bool = True, **kwargs: Any) -> Any:
        """Note that an entry with a scope is due; send any other."""
        if _scope(entry) is None:
            return super().apply_async(entry, producer=producer, advance=advance, **kwargs)
        firing = _fired(entry)
        if advance:
            self.reserve(entry)
        self._firings.append(firing)
        return None

    def tick(self, *args: Any, **kwargs: Any) -> float:
        """Send a chunk of what is due, then let the scheduler look for more. Returns seconds until the next call."""
        pause = self._go_on()
        following: float = super().tick(*args, **kwargs)
        return min(following, pause) if self._firings else following

    def _go_on(self) -> float:
        try:
            self._resume()
            if self._firings:
                self._send_chunk(self._firings[0])
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
            if entry is None or _scope(entry) is None:
                _claims().release(_OPEN, name)
            else:
                self._firings.append(_fired(entry, datetime.fromisoformat(due)))
        self._resumed = True

    def _send_chunk(self, firing: Firing) -> None:
        if firing.waiting is None and not _begun(firing):
            self._firings.popleft()
            return
        for _ in range(min(CHUNK, len(firing.waiting or ()))):
            self._send(firing)
        if not firing.waiting:
            _ended(firing)
            self._firings.popleft()

    def _send(self, firing: Firing) -> None:
        """Send the task of the first who waits, who stays the first if it fails."""
        assert firing.waiting
        tenant_id = firing.waiting[0]
        claims, name = _claims(), f"{_OPEN}:{firing.name}"
        with _undisturbed():
            if claims.claim(name, tenant_id, max(KEPT, 2 * firing.period)):
                try:
                    super().apply_async(_for_tenant(firing, tenant_id), producer=self.producer, advance=False)
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
def _undisturbed() -> Iterator[None]:
    """Put signals off: beat ends by an exception from its handler, which must not part a claim from its task.

    A mask would not do: the kernel hands the signal to another thread, and Python runs the handler in this one.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[tuple[int, FrameType | None]] = []
    handlers = {number: signal.signal(number, lambda *args: came.append(args)) for number in _ENDING}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if came:
        number, frame = signal.Signals(came[0][0]), came[0][1]
        handler = handlers[number]
        if callable(handler):
            handler(number, frame)
        elif handler is signal.SIG_DFL:
            signal.raise_signal(number)


def _scope(entry: Any) -> Any:
    headers = entry.options.get("headers") or {}
    return headers.get(SCOPE) or ([headers[TENANT]] if headers.get(TENANT) else None)


def _fired(entry: ScheduleEntry, due: datetime | None = None) -> Firing:
    """A firing; two beats whose clocks agree give it the same name."""
    schedule: Any = entry.schedule
    due = due or datetime.now(timezone.utc) + _remaining(schedule, entry.last_run_at)
    period = max(0.0, _remaining(schedule, schedule.now()).total_seconds())
    asked = (entry.options.get("headers") or {}).get(SPREAD)
    spread = min(LONGEST_SPREAD, SHARE * period) if asked is None else float(asked)
    return Firing(entry, due, f"{entry.name}@{_slot(schedule, due).isoformat()}", period, spread)


def _remaining(schedule: Any, last_run_at: datetime) -> timedelta:
    found: timedelta = schedule.remaining_estimate(schedule.maybe_make_aware(last_run_at))
    return found


def _slot(schedule: Any, due: datetime) -> datetime:
    """What two beats agree on: the second of a time of day; of intervals, which begin with a beat, those since 1970."""
    every = getattr(schedule, "run_every", None)
    if every is None:
        return datetime.fromtimestamp(round(due.timestamp()), timezone.utc)
    seconds = max(every.total_seconds(), 0.001)
    return datetime.fromtimestamp(round(due.timestamp() // seconds * seconds, 3), timezone.utc)


def _begun(firing: Firing) -> bool:
    """Find out who is to have a task; ``False`` when the firing was over before."""
    claims = _claims()
    if claims.claimed(f"{_OPEN}:{firing.name}:done"):
        return False
    claims.claim(_OPEN, firing.name, KEPT_DONE)
    tenant_ids = _tenants(firing)
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


def _tenants(firing: Firing) -> list[str]:
    """The active tenants of the entry's scope, in an order of their own; what is wrong with it becomes a remark."""
    scope = _scope(firing.entry)
    if isinstance(scope, (list, tuple)):
        found = [tenant_id for tenant_id in dict.fromkeys(map(str, scope)) if _is_active(tenant_id, firing)]
    elif scope == "all":
        found = list(_active())
    elif isinstance(scope, str) and scope.startswith("label:"):
        found = list(_labelled(scope.removeprefix("label:"), firing))
    else:
        firing.remarks.append(f"the scope {scope!r} is neither 'all', 'label:NAME' nor a list of tenant ids")
        return []
    if not found:
        firing.remarks.append(f"the scope {scope!r} matches no active tenant")
    return sorted(found, key=firing.countdown)


def _active() -> Iterator[str]:
    return (one for one in tenant_context_manager.get_tenant_ids() if tenant_context_manager.state_of(one) == ACTIVE)


def _is_active(tenant_id: str, firing: Firing) -> bool:
    state = tenant_context_manager.state_of(tenant_id)
    if state != ACTIVE:
        known = "is unknown" if state is None else f"is {STATE_NAMES[state]}"
        firing.remarks.append(f"tenant {tenant_id!r} {known} and has no task")
    return state == ACTIVE


def _labelled(label: str, firing: Firing) -> Iterator[str]:
    """Read from the store, page by page: a process need not hold every tenant's record."""
    serving, active = runtime.get(), list(_active())
    for start in range(0, len(active), PAGE):
        for tenant_id, stored in serving.store.get_many(active[start : start + PAGE]).items():
            try:
                record = codec.decode(tenant_id, stored.body, serving.serializer)
            except SerializerError as error:
                firing.remarks.append(str(error))
            else:
                if label in record.get("labels", ()):
                    yield tenant_id


def _for_tenant(firing: Firing, tenant_id: str) -> Any:
    """The entry as if it were the tenant's own."""
    own, countdown = SimpleNamespace(**vars(firing.entry)), firing.countdown(tenant_id)
    headers = {name: value for name, value in firing.entry.options["headers"].items() if name not in (SCOPE, SPREAD)}
    own.options = {**firing.entry.options, "headers": {**headers, TENANT: tenant_id, FIRING: firing.name}}
    own.options["countdown"] = countdown
    expires = own.options.get("expires")
    if isinstance(expires, (int, float)):  # seconds from being sent, which is earlier than being due
        own.options["expires"] = expires + countdown
    return own


def _claims() -> Any:
    """The config store, which keeps the claims."""
    store = runtime.get().store
    if not store.keeps_claims:
        raise ConfigurationError(f"{type(store).__name__} keeps no claims, which beat needs: see config_store.base")
    return store
