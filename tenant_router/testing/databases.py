"""The test databases of the other test tenants: Django creates those of the templates only."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from django.core.management import call_command
from django.db import connections

from tenant_router.context_decorators import tenant_context_bind
from tenant_router.orm_backends.django_orm.slots import Database


def create(
    databases: Iterable[Database], *, verbosity: int, interactive: bool, keepdb: bool, parallel: int = 0
) -> None:
    """Create, migrate and, for ``parallel`` workers, clone them."""
    for database in databases:
        with _bound(database) as connection:
            name = connection.creation._get_test_db_name()
            connection.creation._create_test_db(verbosity, not interactive, keepdb)
            connection.close()
            connection.settings_dict["NAME"] = name
            call_command(
                "migrate",
                database=database.template,
                verbosity=max(verbosity - 1, 0),
                interactive=False,
                run_syncdb=True,
            )
            call_command("createcachetable", database=database.template)
            for index in range(parallel if parallel > 1 else 0):
                connection.creation.clone_test_db(suffix=str(index + 1), verbosity=verbosity, keepdb=keepdb)


def destroy(databases: Iterable[Database], *, verbosity: int, keepdb: bool, parallel: int = 0) -> None:
    """Remove them, unless ``keepdb``."""
    for database in databases:
        with _bound(database) as connection:
            names = [str(connection.settings_dict["NAME"])]
            for index in range(parallel if parallel > 1 else 0):
                names.append(str(connection.creation.get_test_db_clone_settings(str(index + 1))["NAME"]))
            connection.close()
            for name in names if not keepdb else ():
                connection.creation._destroy_test_db(name, verbosity)


def switch_to_worker(databases: Iterable[Database], worker_id: int) -> None:
    """In a process of a parallel run: use this worker's clones."""
    for database in databases:
        with _bound(database) as connection:
            connection.creation.setup_worker_connection(worker_id)


@contextmanager
def _bound(database: Database) -> Iterator[Any]:
    with tenant_context_bind(database.tenant_id):
        yield connections[database.template]
