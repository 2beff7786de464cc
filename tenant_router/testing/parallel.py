"""Parallel test runs: gives each worker process the test tenants, whether forked or spawned."""

from __future__ import annotations

import multiprocessing
from functools import partial
from types import SimpleNamespace
from typing import Any

import django
from django.test import runner as django_runner
from django.test.runner import ParallelTestSuite

from tenant_router.testing import databases, production_aliases
from tenant_router.testing.mode import TestMode

_TENANTS = " tenants"  # of the dictionary of initial settings: no alias is called so
_INITIAL_SETTINGS, _PROCESS_SETUP, _PROCESS_SETUP_ARGS, _ALIASES = 0, 2, 3, 5  # places in init_worker's arguments


class ActiveRun:
    """The test run of this process: its mode is set by the runner, and inherited or made anew by a worker."""

    mode: TestMode | None = None

    @classmethod
    def get(cls) -> TestMode:
        """The mode. Raises ``RuntimeError`` outside a run."""
        if cls.mode is None:
            raise RuntimeError("setup_test_environment() of TenantTestRunner was not called")
        return cls.mode


def init_worker(inner: Any, counter: Any, *args: Any) -> None:
    """Begin a process of a parallel run (a plain function of a module: it must be picklable).

    A forked process has the parent's mode. A spawned one has nothing: Django sets itself up in
    its own function (``inner``), but touches the connections there, so the tenant must be bound before.
    """
    state: databases.WorkerState = ((args[_INITIAL_SETTINGS] or {}) if args else {}).pop(_TENANTS, {})
    if ActiveRun.mode is None:
        args = _set_up(args)
        ActiveRun.mode = TestMode()
        ActiveRun.mode.begin()
        ActiveRun.mode.add(tenant_id for tenant_id, _ in state)
    else:
        production_aliases.restore(ActiveRun.mode)
    inner(counter, *args)
    aliases = args[_ALIASES] if len(args) > _ALIASES else None
    databases.switch_to_worker(ActiveRun.mode, django_runner._worker_id, state, aliases)  # type: ignore[attr-defined]
    production_aliases.apply(ActiveRun.mode)


def _set_up(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Do the suite's own set-up; return the arguments without it, so that Django does not repeat it."""
    given = list(args)
    if len(given) > _PROCESS_SETUP_ARGS and callable(given[_PROCESS_SETUP]):
        given[_PROCESS_SETUP](*(given[_PROCESS_SETUP_ARGS] or ()))
        given[_PROCESS_SETUP] = None
    django.setup()
    return tuple(given)


class TenantParallelTestSuite(ParallelTestSuite):
    """A parallel suite whose processes have the test tenants; a project's own can be mixed in below it."""

    @property
    def init_worker(self) -> Any:  # type: ignore[override]
        """What Django takes the function from, to hand it to a process pool."""
        inner: Any = super().init_worker
        return SimpleNamespace(__func__=partial(init_worker, inner.__func__))

    def initialize_suite(self) -> None:
        """Hand the other tenants to spawned processes, too."""
        super().initialize_suite()
        if multiprocessing.get_start_method() != "fork" and self.initial_settings is not None:
            state: dict[str, Any] = self.initial_settings
            state[_TENANTS] = databases.worker_state(ActiveRun.get())
