"""A lock that the database itself keeps while it is migrated: whoever migrates it, by whichever door of ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from django.db import DatabaseError

from tenant_router.exceptions import Locked

_KEY = 7_274_116_905_418_530_421  # of PostgreSQL, in each database for itself; a number that nobody else has chosen
_MYSQL_NAME = "CONCAT('tenant_router.', LEFT(SHA1(DATABASE()), 32))"  # whose locks are the server's; 64 characters
# ends with the session, so also when its holder is killed
_TAKE = {
    "postgresql": (f"SELECT pg_try_advisory_lock({_KEY})", f"SELECT pg_advisory_unlock({_KEY})"),
    "mysql": (f"SELECT GET_LOCK({_MYSQL_NAME}, 0)", f"SELECT RELEASE_LOCK({_MYSQL_NAME})"),
}


@contextmanager
def locked(connection: Any) -> Iterator[None]:
    """Hold the lock of a database while the block runs, on the connection that works on it.

    Raises ``Locked`` when somebody else has it. Databases of other kinds have none: SQLite locks its file.
    """
    if connection.vendor not in _TAKE:
        yield
        return
    take, give = _TAKE[connection.vendor]
    with connection.cursor() as cursor:
        cursor.execute(take)
        if not cursor.fetchone()[0]:
            raise Locked(f"somebody else migrates the database of {connection.alias!r} now: nothing was done")
    try:
        yield
    finally:
        # A pool keeps the session. One that is gone, or in a transaction that failed, has given it back or will.
        with suppress(DatabaseError), connection.cursor() as cursor:
            cursor.execute(give)
