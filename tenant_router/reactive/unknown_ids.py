"""Bounds on what unknown tenant ids may cost the config store."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout

logger = logging.getLogger(__name__)

LOOK_UP_PAUSE = 5.0  # seconds in which one unknown id is looked up in the store once
LOOK_UPS_PER_SECOND = 50  # of unknown ids, per process
LOOK_UPS_REMEMBERED = 10_000  # unknown ids
BUDGET = 0.25  # seconds that a request waits for an answer
FLIGHTS = 8  # ids that are being asked for at once: a store that hangs is not asked for more


class LookUps:
    """Bounds the store's load by unknown ids: each once per pause, all together by a token bucket."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asked: OrderedDict[str, float] = OrderedDict()
        self._flights: dict[str, Future[bool]] = {}
        self._tokens, self._filled = float(LOOK_UPS_PER_SECOND), time.monotonic()

    def once(self, tenant_id: str, ask: Callable[[str], bool]) -> bool:
        """``ask`` for an id within the bounds; who comes while it is being asked for waits for that answer."""
        with self._lock:
            flight = self._flights.get(tenant_id)
            if flight is None:
                if not self._allowed(tenant_id):
                    return False
                flight = self._flights[tenant_id] = Future[bool]()
                # in a thread of its own, because the client of a store that hangs waits for longer than a visitor
                threading.Thread(target=self._fly, args=[tenant_id, ask, flight], daemon=True).start()
        try:
            return flight.result(BUDGET)
        except FutureTimeout:  # before Python 3.11 not the built-in one
            return False

    def _fly(self, tenant_id: str, ask: Callable[[str], bool], flight: Future[bool]) -> None:
        found = False
        try:
            found = ask(tenant_id)
        except Exception:
            logger.exception("looking up a tenant failed")
        finally:
            with self._lock:
                del self._flights[tenant_id]
            flight.set_result(found)

    def _allowed(self, tenant_id: str) -> bool:
        now = time.monotonic()
        if len(self._flights) >= FLIGHTS or now - self._asked.get(tenant_id, float("-inf")) < LOOK_UP_PAUSE:
            return False
        self._tokens = min(LOOK_UPS_PER_SECOND, self._tokens + (now - self._filled) * LOOK_UPS_PER_SECOND)
        self._filled = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        self._asked[tenant_id] = now
        self._asked.move_to_end(tenant_id)
        while len(self._asked) > LOOK_UPS_REMEMBERED:
            self._asked.popitem(last=False)
        return True
