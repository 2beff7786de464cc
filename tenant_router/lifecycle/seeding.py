"""Loading a new tenant's first data once, however often that is begun."""

from __future__ import annotations

from collections.abc import Sequence

from django.core.management import call_command
from django.db import connections, transaction

ORM = "django_orm"  # whose databases ``loaddata`` knows
# There from the transaction that loads the data until the store has it that they are loaded.
_MARK = "tenant_router_seeded"


def seed(alias: str, fixtures: Sequence[str]) -> None:
    """``loaddata`` into the bound tenant's database, all or nothing. Raises what the command and the driver raise."""
    with transaction.atomic(using=alias):
        if not _is_marked(alias):
            with connections[alias].cursor() as cursor:
                cursor.execute(f"CREATE TABLE {_MARK} (seeded integer)")
            call_command("loaddata", *fixtures, database=alias, verbosity=0)


def forget(alias: str) -> None:
    """Remove the mark, if there is one."""
    if _is_marked(alias):
        with connections[alias].cursor() as cursor:
            cursor.execute(f"DROP TABLE {_MARK}")


def _is_marked(alias: str) -> bool:
    connection = connections[alias]
    with connection.cursor() as cursor:
        return _MARK in connection.introspection.table_names(cursor)
