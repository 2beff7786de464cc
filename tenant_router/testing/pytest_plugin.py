"""The pytest plugin: what ``TenantTestRunner`` is for Django's runner, for pytest-django.

Active when pytest-django is and tenant_router is installed in the settings. Tests need
nothing to run as the test tenant; ``@pytest.mark.tenants("a", "b")`` gives a test others.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest


class TenantSession:
    """The test mode of one pytest session, and Django's functions that it wraps meanwhile."""

    def __init__(self, config: pytest.Config) -> None:
        from django.test import utils

        from tenant_router.testing import databases
        from tenant_router.testing.mode import TestMode

        # As pytest-django names the databases of pytest-xdist's processes and of tox's environments.
        worker = getattr(config, "workerinput", {}).get("workerid", "")
        self.mode = TestMode("_".join(filter(None, (os.getenv("TOX_PARALLEL_ENV"), worker))))
        self._config, self._orms_created = config, False
        self._databases = databases  # imported now: it keeps Django's functions, which begin() replaces
        self._utils: Any = utils
        self._setup, self._teardown = utils.setup_databases, utils.teardown_databases
        self._created: Any = []

    def begin(self) -> None:
        """Bind the test tenant. pytest-django looks both functions up when it needs them."""
        self._utils.setup_databases = self.setup_databases
        self._utils.teardown_databases = self.teardown_databases
        self.mode.begin()

    def end(self) -> None:
        """Undo :meth:`begin`."""
        self.mode.end()
        self._utils.setup_databases, self._utils.teardown_databases = self._setup, self._teardown

    def setup_databases(self, verbosity: int, interactive: bool, **kwargs: Any) -> Any:
        """Django's, then the other test tenants' databases."""
        from tenant_router.testing import production_aliases

        self.mode.prepare_others()  # pytest-xdist has changed the templates' names meanwhile
        found = self._setup(verbosity, interactive, **kwargs)
        self._created = self._databases.create(self.mode, verbosity, interactive, **kwargs)
        production_aliases.apply(self.mode)
        return found

    def teardown_databases(self, old_config: Any, verbosity: int, *args: Any, **kwargs: Any) -> None:
        """Remove what :meth:`setup_databases` created."""
        from tenant_router.testing import production_aliases

        production_aliases.restore(self.mode)
        self._databases.destroy(self.mode, self._created, verbosity)
        self._teardown(old_config, verbosity, *args, **kwargs)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        """End the test mode, when the last fixtures are torn down."""
        if self._orms_created and not self._config.getoption("reuse_db", False):
            self._databases.destroy_of_orms(self.mode, self._config.option.verbose)
        self.end()

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Prepare every tenant that a mark or a test case names."""
        self.mode.add(tenant_id for item in items for tenant_id in (*_marked(item), *_named_by_class(item)))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Iterator[None]:
        """Have the test case that pytest-django makes for a marked test name the mark's tenants."""

        from tenant_router.testing import declared_databases

        self._create_of_orms()
        with declared_databases.declare_tenants(_marked(item)):
            yield

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_teardown(self) -> Iterator[None]:
        """Empty the databases without transactions, after the test's fixtures."""
        try:
            yield
        finally:
            self.mode.flush()

    def _create_of_orms(self) -> None:
        """Before the first test: the process that hands tests to pytest-xdist's workers never gets here."""
        from tenant_router.testing.orm_databases import Wishes

        if not self._orms_created:
            self._orms_created = True
            reuse, anew = (self._config.getoption(name, False) for name in ("reuse_db", "create_db"))
            wishes = Wishes(self._config.option.verbose, keep=reuse and not anew)
            self._databases.create_of_orms(self.mode, [self.mode.label], wishes)

    @pytest.fixture(autouse=True)
    def _tenants_of_the_mark(self, request: pytest.FixtureRequest) -> Iterator[None]:
        """Give a marked test that may use the database its tenants' databases, cleaned up as pytest-django does."""
        tenant_ids = _marked(request.node)
        mark = request.node.get_closest_marker("django_db")
        names = set(request.fixturenames)
        if not tenant_ids or not (mark or names & {"db", "transactional_db"}):
            yield
            return
        transactional = _is_transactional(mark, names)
        request.getfixturevalue("transactional_db" if transactional else "db")
        yield from _isolated(tenant_ids, _databases(mark), transactional)


def pytest_configure(config: pytest.Config) -> None:
    """Declare the mark."""
    config.addinivalue_line("markers", "tenants(*ids): other test tenants, with databases of their own, for this test")


def pytest_sessionstart(session: pytest.Session) -> None:
    """Begin the test mode, if there is a project with tenants."""
    if session.config.pluginmanager.hasplugin("django") and _is_installed():
        state = TenantSession(session.config)
        state.begin()
        session.config.pluginmanager.register(state, "tenant_router-session")


@pytest.fixture
def tenant() -> str:
    """The id of the test tenant, which is bound wherever nothing else is."""
    from tenant_router.conf import conf

    return str(conf.tests["TENANT_ID"])


@pytest.fixture
def tenants() -> Callable[[str], AbstractContextManager[Any]]:
    """``with tenants("b"):`` runs as that tenant."""
    from tenant_router.context_decorators import tenant_context_bind

    return tenant_context_bind


@pytest.fixture
def tenant_client() -> Callable[..., Any]:
    """``tenant_client("b")`` is a test client of that tenant."""
    from tenant_router.testing.clients import tenant_client

    return tenant_client


def _isolated(tenant_ids: list[str], databases: Any, transactional: bool) -> Iterator[None]:
    from django.db import connections

    from tenant_router.testing.cases import enter_atomics, flush, rollback_atomics

    declared = set(connections) if databases == "__all__" else set(databases or {"default"})
    if transactional:
        yield
        flush(tenant_ids, declared)
    else:
        atomics = enter_atomics(tenant_ids, declared)
        yield
        rollback_atomics(atomics)


def _is_transactional(mark: pytest.Mark | None, names: set[str]) -> bool:
    marked = mark is not None and (
        any(mark.args[:2]) or mark.kwargs.get("transaction") or mark.kwargs.get("reset_sequences")
    )
    return bool(marked or names & {"transactional_db", "live_server", "django_db_reset_sequences"})


def _databases(mark: pytest.Mark | None) -> Any:
    if mark is None:
        return None
    return mark.args[2] if len(mark.args) > 2 else mark.kwargs.get("databases")


def _marked(item: Any) -> list[str]:
    return list(dict.fromkeys(tenant_id for mark in item.iter_markers("tenants") for tenant_id in mark.args))


def _named_by_class(item: Any) -> tuple[str, ...]:
    case = getattr(item, "cls", None)
    return tuple(getattr(case, "tenants", None) or ()) if hasattr(case, "tenant_client") else ()


def _is_installed() -> bool:
    from django.apps import apps
    from django.conf import settings

    return settings.configured and apps.ready and apps.is_installed("tenant_router")
