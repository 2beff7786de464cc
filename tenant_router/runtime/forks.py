"""What a process does before it is forked, and its children afterwards.

A child begins with what its parent knew. It serves when it has applied what the store has had since.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from typing import Protocol

from tenant_router import context as _context
from tenant_router.config_store.base import ConfigStore
from tenant_router.managers import tenant_context_manager
from tenant_router.reactive.pipeline import Pipeline
from tenant_router.reactive.reflector import Reflector
from tenant_router.runtime import roles

logger = logging.getLogger(__name__)

PATIENCE = 1.0  # seconds that a forked child waits for its store before it serves what its parent had read
HURRY = 0.05  # seconds that one answer may take who is about to fork
FORK_BUDGET = 0.2  # seconds that all of them may take
ASK_GAP, SULK = 0.05, 1.0  # seconds between two questions of a process without a thread; after one that failed


class Forked(Protocol):
    """The runtime of a process that is forked."""

    armed: bool
    store: ConfigStore
    pipeline: Pipeline
    reflector: Reflector

    def reset_after_fork(self) -> None:
        """In a child: forget the parent's threads and sockets, and serve nothing yet of what it knew."""


class Forks:
    """What forks mean to one runtime."""

    def __init__(self, runtime: Forked) -> None:
        self._runtime = runtime
        self.ask_at = 0.0  # time.monotonic() at which a process without a thread may ask again

    def catch_up(self) -> None:
        """In a server that follows nothing itself: take what the store has had since it was asked last.

        For a main process before it forks its servers, or binds a tenant for what it does itself. It costs nothing
        where a thread follows the store or nobody serves, a question to the store otherwise, and never an exception.
        """
        reflector = self._runtime.reflector
        due = self._runtime.armed and reflector.synchronised and time.monotonic() >= self.ask_at
        if not due or reflector._thread is not None or _context.testing:
            return
        try:
            with self._runtime.store.hurried(HURRY) as store:
                reflector.catch_up_alone(store, FORK_BUDGET)
            self.ask_at = time.monotonic() + ASK_GAP
        except Exception as error:  # who forks must not be stopped by it: the children ask for themselves
            logger.info("the config store was not asked: %s", error)
            self.ask_at = time.monotonic() + SULK

    def go_on(self) -> None:
        """Serve what was read before the fork, when what the store has had since is applied or cannot be had."""
        self._runtime.reflector.start()
        if not self._runtime.reflector.wait_caught_up(PATIENCE):
            logger.warning("the config store does not answer: serving what was known before the fork")
        self._runtime.pipeline.serve()

    def before_fork(self) -> None:
        """A child begins with what its parent knows: let that be whole, and new if it would not learn by itself."""
        self.catch_up()
        self._runtime.pipeline.hold_still(FORK_BUDGET)

    def after_fork_in_parent(self) -> None:
        """Let others publish again."""
        self._runtime.pipeline.go_on()

    def after_fork(self) -> None:
        """In a forked child: serve if the parent served."""
        self._runtime.reset_after_fork()
        if self._runtime.armed and not roles.forked_by_multiprocessing():
            self._runtime.reflector.start()
        # else it asks for itself, if it ever asks


def _of_the_runtime(name: str) -> Callable[[], None]:
    def call() -> None:
        forks = getattr(tenant_context_manager.source, "forks", None)  # in a test run it is no runtime
        if isinstance(forks, Forks):
            getattr(forks, name)()

    return call


os.register_at_fork(
    before=_of_the_runtime("before_fork"),
    after_in_parent=_of_the_runtime("after_fork_in_parent"),
    after_in_child=_of_the_runtime("after_fork"),
)
