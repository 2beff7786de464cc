"""``TenantTestRunner``: an application's own test suite, unchanged, under tenant routing."""

from __future__ import annotations

from typing import Any

from django.test.runner import DiscoverRunner
from django.test.utils import iter_test_cases  # type: ignore[attr-defined]

from tenant_router.testing import databases, production_aliases
from tenant_router.testing.mode import TestMode
from tenant_router.testing.orm_databases import Wishes
from tenant_router.testing.parallel import ActiveRun, TenantParallelTestSuite


class TenantTestRunner(DiscoverRunner):
    """Set ``TEST_RUNNER = "tenant_router.testing.TenantTestRunner"``, and nothing else.

    Cooperative: mix it into a runner of the project's own, ``class R(TenantTestRunner, TheirRunner)``.
    """

    binds_test_tenant = True  # asked by the command "test", which refuses other runners
    parallel_test_suite = TenantParallelTestSuite

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Put our parallel suite before the one of the runner that is mixed in."""
        super().__init_subclass__(**kwargs)
        suites = dict.fromkeys(
            vars(base)["parallel_test_suite"] for base in cls.__mro__ if "parallel_test_suite" in vars(base)
        )
        theirs = [suite for suite in suites if not issubclass(TenantParallelTestSuite, suite)]
        if theirs and not issubclass(theirs[0], TenantParallelTestSuite):
            cls.parallel_test_suite = type(  # type: ignore[assignment]
                theirs[0].__name__, (TenantParallelTestSuite, theirs[0]), {}
            )

    def setup_test_environment(self, **kwargs: Any) -> None:
        """Bind the test tenant: from here on no real tenant can be reached."""
        ActiveRun.mode = TestMode()
        ActiveRun.mode.begin()
        super().setup_test_environment(**kwargs)

    def build_suite(self, *args: Any, **kwargs: Any) -> Any:
        """Note the tenants that test cases name."""
        suite = super().build_suite(*args, **kwargs)
        if ActiveRun.mode is not None:
            ActiveRun.mode.add(
                tenant_id
                for test in iter_test_cases(suite)
                for tenant_id in getattr(test, "tenants", None) or ()
                if hasattr(test, "tenant_client")
            )
        return suite

    def setup_databases(self, **kwargs: Any) -> Any:
        """Create the test databases: Django's own first, then those of the other test tenants."""
        mode = ActiveRun.get()
        mode.prepare_others()
        old_config = super().setup_databases(**kwargs)
        self._created = databases.create(
            mode,
            self.verbosity,
            self.interactive,
            keepdb=self.keepdb,
            debug_sql=self.debug_sql,
            parallel=self.parallel,
            **kwargs,
        )
        labels = [str(worker + 1) for worker in range(self.parallel)] if self.parallel > 1 else [mode.label]
        databases.create_of_orms(mode, labels, Wishes(self.verbosity, self.interactive, self.keepdb))
        production_aliases.apply(mode)
        return old_config

    def teardown_databases(self, old_config: Any, **kwargs: Any) -> None:
        """Remove what :meth:`setup_databases` created."""
        production_aliases.restore(ActiveRun.get())
        databases.destroy(ActiveRun.get(), self._created, self.verbosity, parallel=self.parallel, keepdb=self.keepdb)
        if not self.keepdb:
            databases.destroy_of_orms(ActiveRun.get(), self.verbosity)
        super().teardown_databases(old_config, **kwargs)

    def teardown_test_environment(self, **kwargs: Any) -> None:
        """Unbind the test tenant."""
        super().teardown_test_environment(**kwargs)
        ActiveRun.get().end()
        ActiveRun.mode = None
