"""Locks by name in the config store: of those who work on one tenant's databases, on whichever machine, one at a time.

A lock ends by itself when its holder dies, after :data:`LASTS` seconds, and a living holder keeps it for longer.
"""

from __future__ import annotations

import logging
import random
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tenant_router.config_store.base import ConfigStore
from tenant_router.exceptions import Locked, StoreError

logger = logging.getLogger(__name__)

LASTS = 30.0  # seconds
PATIENCE = 60.0  # seconds for which somebody else's lock is waited for: longer than a dead holder's lasts
_MEMBER = "holder"


class Locks:
    """The locks of one run, in all its threads. Without claims in the store nobody is kept out.

    ``lasts`` and ``patience`` are seconds.
    """

    lasts = LASTS
    patience = PATIENCE

    def __init__(self, store: ConfigStore) -> None:
        self._store, self._owner = store, uuid.uuid4().hex
        self._held: set[str] = set()
        self._changed = threading.Condition()
        self._renewing = False

    @contextmanager
    def holding(self, name: str) -> Iterator[None]:
        """Hold a lock while the block runs. Raises ``Locked`` when somebody else keeps it, and ``StoreError``."""
        if not self._store.keeps_claims:
            yield
            return
        self._take(name)
        try:
            yield
        finally:
            with self._changed:
                self._held.discard(name)
                self._changed.notify_all()
            with suppress(StoreError):  # it ends by itself
                self._store.release(f"lock:{name}", _MEMBER, by=self._owner)

    def _take(self, name: str) -> None:
        deadline = time.monotonic() + self.patience
        while not self._claim(name):
            if time.monotonic() >= deadline:
                raise Locked(
                    f"another run works on {name!r} and has not ended within {self.patience:.0f} s: nothing was done"
                )
            time.sleep(random.uniform(0.1, 0.3))
        with self._changed:
            self._held.add(name)
            if not self._renewing:
                self._renewing = True
                threading.Thread(target=self._renew, name="tenant_router-locks", daemon=True).start()

    def _claim(self, name: str) -> bool:
        return self._store.claim(f"lock:{name}", _MEMBER, self.lasts, by=self._owner)

    def _renew(self) -> None:
        """Until nothing is held. A store that is away is asked again: the lock may outlast that."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: not self._held, self.lasts / 3)
                if not self._held:
                    self._renewing = False
                    return
                held = [*self._held]
            for name in held:
                try:
                    self._claim(name)
                    if name not in self._held:  # given back meanwhile
                        self._store.release(f"lock:{name}", _MEMBER, by=self._owner)
                except StoreError as error:
                    logger.warning("the lock of %r is not prolonged: %s", name, error)
