"""Runs one job per tenant, a few at once, and tells what came of each.

A runner knows nothing of commands: a job is anything that is called with a tenant's id. Who is told of outcomes is told
in the thread that has called :meth:`Runner.run`, one after the other.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any

from tenant_router.fleet.outcomes import NOT_RUN, OK, STOPPED, Outcome, failed

REAPED = 10.0  # seconds that are waited for what was told to stop at once


class Runner:
    """``job``: what is done for a tenant; what it raises is the tenant's outcome, and concerns nobody else.

    ``threads``: how many threads work; with 0 the calling one does. ``max_failures``: after more than so many nothing
    new is begun; ``None`` is any number. ``told``: called with each outcome. ``leave_thread``: called in each thread
    that ends. ``kill``: stops at once what runs, where that is possible.
    """

    def __init__(
        self,
        job: Callable[[str], Any],
        *,
        threads: int = 0,
        max_failures: int | None = None,
        told: Callable[[Outcome], None] = lambda outcome: None,
        leave_thread: Callable[[], None] = lambda: None,
        kill: Callable[[], None] | None = None,
    ) -> None:
        self._job, self._threads, self._told = job, threads, told
        self._max_failures, self._leave_thread, self._kill = max_failures, leave_thread, kill
        self._lock = threading.Lock()
        self._waiting: deque[str] = deque()
        self._running: dict[str, float] = {}  # tenant id -> when it began
        self._failures = 0
        self._begun: list[threading.Thread] = []
        self._ended: SimpleQueue[Outcome | None] = SimpleQueue()  # None: a thread has no more to do
        self.interrupted = False

    @property
    def running(self) -> list[str]:
        """The tenants that are worked for now."""
        return list(self._running)

    def finish(self) -> None:
        """Begin nothing new; what runs is finished. May be called by a signal's handler: it takes no lock."""
        self.interrupted = True

    def run(self, tenant_ids: Iterable[str]) -> list[Outcome]:
        """Do the job for each tenant, and return their outcomes in the order of ``tenant_ids``.

        ``KeyboardInterrupt`` stops at once: what cannot be stopped goes on in threads that nobody waits for.
        """
        wanted = list(dict.fromkeys(tenant_ids))
        self._waiting.extend(wanted)
        found: dict[str, Outcome] = {}
        try:
            for outcome in self._outcomes():
                found[outcome.tenant_id] = outcome
                self._told(outcome)
        except KeyboardInterrupt:
            for outcome in self._stop_at_once():
                found.setdefault(outcome.tenant_id, outcome)
        finally:
            self.interrupted = self.interrupted or bool(self._waiting and self._within_limit())
        return [found.get(tenant_id) or Outcome(tenant_id, NOT_RUN) for tenant_id in wanted]

    def join(self) -> None:
        """Wait until nothing runs any more."""
        for thread in self._begun:
            thread.join()

    # --- inside ---

    def _outcomes(self) -> Iterator[Outcome]:
        if not self._threads:
            while (tenant_id := self._next()) is not None:
                done = self._done(tenant_id)
                self._running.pop(tenant_id)
                yield done
            return
        for number in range(min(self._threads, len(self._waiting))):
            thread = threading.Thread(target=self._work, name=f"tenants-{number}", daemon=True)
            self._begun.append(thread)
            thread.start()
        left = len(self._begun)
        while left:
            outcome = self._ended.get()
            if outcome is None:
                left -= 1
            else:
                yield outcome

    def _work(self) -> None:
        try:
            while (tenant_id := self._next()) is not None:
                self._ended.put(self._done(tenant_id))
                self._running.pop(tenant_id)  # only now: whoever stops at once finds it here or there
        finally:
            try:
                self._leave_thread()
            finally:
                self._ended.put(None)

    def _next(self) -> str | None:
        with self._lock:
            if self.interrupted or not self._waiting or not self._within_limit():
                return None
            tenant_id = self._waiting.popleft()
            self._running[tenant_id] = time.monotonic()
            return tenant_id

    def _within_limit(self) -> bool:
        return self._max_failures is None or self._failures <= self._max_failures

    def _done(self, tenant_id: str) -> Outcome:
        begun = self._running[tenant_id]
        try:
            value = self._job(tenant_id)
        except (Exception, SystemExit) as error:
            outcome = failed(tenant_id, error, time.monotonic() - begun)
        else:
            outcome = Outcome(tenant_id, OK, time.monotonic() - begun, value)
        with self._lock:
            self._failures += not outcome.ok
        return outcome

    def _stop_at_once(self) -> Iterator[Outcome]:
        self.interrupted = True
        begun = dict(self._running)
        if self._kill is not None:
            self._kill()
            for thread in self._begun:
                thread.join(REAPED)
        with suppress(Empty):
            while True:
                outcome = self._ended.get_nowait()
                if outcome is not None and (outcome.ok or outcome.tenant_id not in begun):
                    yield outcome
        for tenant_id, since in begun.items():
            yield Outcome(tenant_id, STOPPED, time.monotonic() - since)
