"""Creates and destroys the test databases of the other test tenants, as Django does those of the templates."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from django.conf import settings as django_settings
from django.db import connections
from django.test import utils

from tenant_router.context_decorators import tenant_context_bind
from tenant_router.orm_backends.django_orm.databases import Database
from tenant_router.testing.mode import TestMode
from tenant_router.testing.orm_databases import Wishes

_setup: Any = utils.setup_databases
_teardown: Any = utils.teardown_databases
Created = list[tuple[str, Any]]  # tenant id, what Django's own function needs to remove the databases
WorkerState = dict[
    tuple[str, str], tuple[dict[str, Any], str | None]
]  # tenant id, template: settings, serialized contents


def create(
    mode: TestMode, verbosity: int, interactive: bool, *, aliases: Collection[str] | None = None, **kwargs: Any
) -> Created:
    """Create the other test tenants' copies of those templates that are among ``aliases`` (all, if ``None``).

    ``kwargs``: what ``django.test.utils.setup_databases`` takes.
    """
    templates = mode.manager.template_aliases if mode.manager else ()
    wanted = {alias for alias in templates if aliases is None or alias in aliases}
    kwargs.pop("time_keeper", None)
    created: Created = []
    with _in_settings(mode.other_databases()):
        for tenant_id in mode.other_ids if wanted else ():
            with tenant_context_bind(tenant_id):
                created.append((tenant_id, _setup(verbosity, interactive, aliases=wanted, **kwargs)))
    return created


def destroy(mode: TestMode, created: Created, verbosity: int, **kwargs: Any) -> None:
    """Remove what :func:`create` returned."""
    with _in_settings(mode.other_databases()):
        for tenant_id, old_config in created:
            with tenant_context_bind(tenant_id):
                _teardown(old_config, verbosity, **kwargs)


def create_of_orms(mode: TestMode, labels: Iterable[str], wishes: Wishes) -> None:
    """Create and migrate the test databases of the other ORMs, for each process of the run."""
    before = mode.label
    for label in labels:
        if label != mode.label:
            mode.switch_to(label)
        for databases in mode.orm_databases.values():
            tenant_ids = [context.id for context in mode.contexts()]
            databases.create(tenant_ids, label, wishes)
            databases.migrate(mode.contexts(), wishes.verbosity)
            databases.created(tenant_ids, label)
    if mode.label != before:
        mode.switch_to(before)
    mode.flush()


def destroy_of_orms(mode: TestMode, verbosity: int) -> None:
    """Remove what :func:`create_of_orms` created."""
    for databases in mode.orm_databases.values():
        databases.remove(verbosity)


def worker_state(mode: TestMode) -> WorkerState:
    """What a spawned worker process needs to use the other test tenants' databases."""
    found: WorkerState = {}
    for database in mode.other_databases():
        with tenant_context_bind(database.tenant_id):
            connection = connections[database.template]
            contents = getattr(connection, "_test_serialized_contents", None)
            found[database.tenant_id, database.template] = (connection.settings_dict, contents)
    return found


def switch_to_worker(mode: TestMode, worker_id: int, state: WorkerState, aliases: Collection[str] | None) -> None:
    """In a worker process: use its clones of the databases. ``state``: of :func:`worker_state`, in a spawned one."""
    for orm in mode.orm_databases.values():
        orm.manager.reset_after_fork()
    mode.switch_to(str(worker_id))
    for orm in mode.orm_databases.values():
        orm.adopt([context.id for context in mode.contexts()], mode.label)
    for database in mode.other_databases():
        if aliases is None or database.template in aliases:
            with tenant_context_bind(database.tenant_id):
                connection: Any = connections[database.template]
                settings, contents = state.get((database.tenant_id, database.template), ({}, None))
                connection.settings_dict.update(settings)
                if contents is not None:
                    connection._test_serialized_contents = contents
                connection.creation.setup_worker_connection(worker_id)


@contextmanager
def _in_settings(databases: list[Database]) -> Iterator[None]:
    # create_test_db (django/db/backends/base/creation.py) writes settings.DATABASES[connection.alias]
    original = django_settings.DATABASES
    django_settings.DATABASES = {**original, **{database.alias: database.settings for database in databases}}
    try:
        yield
    finally:
        django_settings.DATABASES = original
