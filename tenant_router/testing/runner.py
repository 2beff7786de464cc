"""``TenantTestRunner``: an application's own test suite, unchanged, under tenant routing."""

from __future__ import annotations

import multiprocessing
from typing import Any

import django
from django.test import runner as django_runner
from django.test.runner import DiscoverRunner, ParallelTestSuite

from tenant_router.testing import databases
from tenant_router.testing.mode import TestMode

_mode: TestMode | None = None


def init_worker(counter: Any, *args: Any, **kwargs: Any) -> None:
    """Begin a process of a parallel run (a plain function of a module: it must be picklable).

    A forked process has the parent's mode. A spawned one has nothing: Django sets itself up in
    its own function, but touches the connections there, so the tenant must be bound before.
    """
    global _mode
    if _mode is None:
        process_setup, process_setup_args = (*args, None, None, None, None)[2:4]
        if callable(process_setup):
            process_setup(*(process_setup_args or ()))
        django.setup()
        _mode = TestMode()
        _mode.begin()
    elif multiprocessing.get_start_method() == "fork":
        _mode.give_names_back()
    django_runner._init_worker(counter, *args, **kwargs)  # type: ignore[attr-defined]
    databases.switch_to_worker(_mode.other_databases(), django_runner._worker_id)  # type: ignore[attr-defined]
    _mode.take_own_names()


class TenantParallelTestSuite(ParallelTestSuite):
    """Django's parallel suite, with processes that have the test tenants."""

    init_worker = init_worker


class TenantTestRunner(DiscoverRunner):
    """Set ``TEST_RUNNER = "tenant_router.testing.TenantTestRunner"``, and nothing else.

    Cooperative: mix it into a runner of the project's own, ``class R(TenantTestRunner, TheirRunner)``.
    """

    parallel_test_suite = TenantParallelTestSuite

    def setup_test_environment(self, **kwargs: Any) -> None:
        """Bind the test tenant: from here on no real tenant can be reached."""
        global _mode
        _mode = TestMode()
        _mode.begin()
        super().setup_test_environment(**kwargs)

    def setup_databases(self, **kwargs: Any) -> Any:
        """Create the test databases: Django's own first, then those of the other test tenants."""
        mode = _active()
        mode.rename_others()
        created = super().setup_databases(**kwargs)
        databases.create(
            mode.other_databases(),
            verbosity=self.verbosity,
            interactive=self.interactive,
            keepdb=self.keepdb,
            parallel=self.parallel,
        )
        mode.take_own_names()
        return created

    def teardown_databases(self, old_config: Any, **kwargs: Any) -> None:
        """Remove what :meth:`setup_databases` created."""
        mode = _active()
        mode.give_names_back()
        databases.destroy(mode.other_databases(), verbosity=self.verbosity, keepdb=self.keepdb, parallel=self.parallel)
        super().teardown_databases(old_config, **kwargs)

    def teardown_test_environment(self, **kwargs: Any) -> None:
        """Unbind the test tenant."""
        global _mode
        super().teardown_test_environment(**kwargs)
        _active().end()
        _mode = None


def _active() -> TestMode:
    assert _mode is not None, "setup_test_environment() was not called"
    return _mode
