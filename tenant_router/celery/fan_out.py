"""Fans a beat entry out: finds the tenants of its scope when it is due, and makes the entry of each of them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from hashlib import blake2b
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from tenant_router.celery.headers import TENANT
from tenant_router.config_store.base import ACTIVE, STATE_NAMES
from tenant_router.fleet.labels import with_label
from tenant_router.managers import tenant_context_manager

if TYPE_CHECKING:
    from celery.beat import ScheduleEntry

SCOPE, SPREAD = "tenant_scope", "tenant_spread"  # headers of an entry
RUN_HEADER = "tenant_firing"  # header of a task: the entry and when it was due, the same for all tasks of one run
MAX_SPREAD = 60.0  # seconds, unless an entry says otherwise
SPREAD_SHARE = 0.1  # of the time to the entry's next run over which its tasks are spread
CLOCK_TOLERANCE = timedelta(seconds=0.25)  # between two readings; times of day are rounded to seconds


@dataclass
class ScheduledRun:
    """One run of an entry: when it was due, the tenants that still wait for a task, and what happened so far."""

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
    claimant: str = field(default_factory=lambda: uuid4().hex)

    def countdown(self, tenant_id: str) -> float:
        """Seconds from now until the tenant's task may start: its own place within the spread, always the same."""
        place = int.from_bytes(blake2b(f"{tenant_id}\0{self.entry.name}".encode(), digest_size=7).digest(), "big")
        offset = place / 2**56 * self.spread
        return max(0.0, self.due.timestamp() + offset - time.time())


def scope_of(entry: Any) -> Any:
    """For whom an entry is: ``None`` for a central one."""
    headers = entry.options.get("headers") or {}
    return headers.get(SCOPE) or ([headers[TENANT]] if headers.get(TENANT) else None)


def scheduled_run(entry: ScheduleEntry, due: datetime | None = None) -> ScheduledRun:
    """The run of an entry that is due; two beats whose clocks agree give it the same name."""
    schedule: Any = entry.schedule
    due = due or _due(schedule, entry.last_run_at)
    period = max(0.0, _remaining(schedule, schedule.now()).total_seconds())
    asked = (entry.options.get("headers") or {}).get(SPREAD)
    spread = min(MAX_SPREAD, SPREAD_SHARE * period) if asked is None else float(asked)
    return ScheduledRun(entry, due, f"{entry.name}@{_period_start(schedule, due).isoformat()}", period, spread)


def _due(schedule: Any, last_run_at: datetime) -> datetime:
    """When it was due. The schedule reads the clock itself, so an answer during which much time passed is not used."""
    while True:
        now = datetime.now(timezone.utc)
        due = now + _remaining(schedule, last_run_at)
        if datetime.now(timezone.utc) - now < CLOCK_TOLERANCE:
            return due


def _remaining(schedule: Any, last_run_at: datetime) -> timedelta:
    found: timedelta = schedule.remaining_estimate(schedule.maybe_make_aware(last_run_at))
    return found


def _period_start(schedule: Any, due: datetime) -> datetime:
    """The start of the period, the same for all beats: a time of day to the second, or intervals counted from 1970."""
    every = getattr(schedule, "run_every", None)
    if every is None:
        return datetime.fromtimestamp(round(due.timestamp()), timezone.utc)
    seconds = max(every.total_seconds(), 0.001)
    return datetime.fromtimestamp(round(due.timestamp() // seconds * seconds, 3), timezone.utc)


def tenants_of(run: ScheduledRun) -> list[str]:
    """The active tenants of the entry's scope, by countdown; what is wrong with the scope becomes a remark."""
    scope = scope_of(run.entry)
    if isinstance(scope, (list, tuple)):
        found = [tenant_id for tenant_id in dict.fromkeys(map(str, scope)) if _is_active(tenant_id, run)]
    elif scope == "all":
        found = list(_active())
    elif isinstance(scope, str) and scope.startswith("label:"):
        label = scope.removeprefix("label:")
        found = list(with_label(_active(), label, lambda error: run.remarks.append(str(error))))
    else:
        run.remarks.append(f"the scope {scope!r} is neither 'all', 'label:NAME' nor a list of tenant ids")
        return []
    if not found:
        run.remarks.append(f"the scope {scope!r} matches no active tenant")
    return sorted(found, key=run.countdown)


def _active() -> Iterator[str]:
    return (one for one in tenant_context_manager.get_tenant_ids() if tenant_context_manager.state_of(one) == ACTIVE)


def _is_active(tenant_id: str, run: ScheduledRun) -> bool:
    state = tenant_context_manager.state_of(tenant_id)
    if state != ACTIVE:
        known = "is unknown" if state is None else f"is {STATE_NAMES[state]}"
        run.remarks.append(f"tenant {tenant_id!r} {known} and has no task")
    return state == ACTIVE


def entry_for_tenant(run: ScheduledRun, tenant_id: str) -> Any:
    """The entry as if it were the tenant's own."""
    own, countdown = SimpleNamespace(**vars(run.entry)), run.countdown(tenant_id)
    headers = {name: value for name, value in run.entry.options["headers"].items() if name not in (SCOPE, SPREAD)}
    own.options = {**run.entry.options, "headers": {**headers, TENANT: tenant_id, RUN_HEADER: run.name}}
    own.options["countdown"] = countdown
    expires = own.options.get("expires")
    if isinstance(expires, (int, float)):  # seconds from being sent, which is earlier than being due
        own.options["expires"] = expires + countdown
    return own
