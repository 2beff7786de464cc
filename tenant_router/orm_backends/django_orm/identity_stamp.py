"""The identity stamp: a row in a tenant's database that says whose it is.

It is compared once for each new connection, before the first statement of anybody else: by then a record that leads
to another tenant's database, a restored dump of somebody else's, or a pooler that mixes databases up is found.
"""

from __future__ import annotations

import logging
from functools import cache
from typing import TYPE_CHECKING, Any

from django.db import transaction
from django.db.utils import OperationalError, ProgrammingError

from tenant_router.exceptions import WrongDatabase
from tenant_router.managers import tenant_context_manager
from tenant_router.orm_backends.base import DatabaseIdentity
from tenant_router.orm_backends.django_orm.databases import Database

if TYPE_CHECKING:
    from django.db.backends.base.client import BaseDatabaseClient as _Client
else:
    _Client = object

logger = logging.getLogger(__name__)

TABLE = "tenant_router_identity"
_COLUMNS = "service, tenant, incarnation, alias"
_SELECT = f"SELECT {_COLUMNS} FROM {TABLE}"
_CREATE = (
    f"CREATE TABLE {TABLE} (service varchar(255) NOT NULL, tenant varchar(255) NOT NULL, "
    "incarnation varchar(32) NOT NULL, alias varchar(255) NOT NULL)"
)


def verify(wrapper: Any, database: Database) -> None:
    """Compare the stamp of the database that ``wrapper`` has just connected to.

    Raises ``WrongDatabase``, which the middleware answers with 503, and what the driver raises.
    """
    raw = wrapper.connection
    if getattr(raw, "_tr_incarnation", "") == database.incarnation:
        return  # from a pool, and compared when it was opened
    found = _read(wrapper)
    wanted = (database.tenant_id, database.incarnation, database.template)
    if wanted not in [(one.tenant_id, one.incarnation, one.alias) for one in found]:
        raise _refused(database, found)
    tenant_context_manager.wrong_databases.pop(database.tenant_id, None)
    if database.pool is not None:
        raw._tr_incarnation = database.incarnation


def read(connection: Any) -> list[DatabaseIdentity]:
    """The stamps of a database: none, its own, or several where a tenant's template aliases share it."""
    connection.ensure_connection()
    return _read(connection)


def write(connection: Any, stamp: DatabaseIdentity) -> None:
    """Write the stamp of one template alias; those of other tenants, and an older one, are gone then."""
    with transaction.atomic(using=connection.alias), connection.cursor() as cursor:
        if TABLE not in connection.introspection.table_names(cursor):
            cursor.execute(_CREATE)
        cursor.execute(
            f"DELETE FROM {TABLE} WHERE service <> %s OR tenant <> %s OR incarnation <> %s OR alias = %s", list(stamp)
        )
        cursor.execute(f"INSERT INTO {TABLE} ({_COLUMNS}) VALUES (%s, %s, %s, %s)", list(stamp))
    if not connection.settings_dict["AUTOCOMMIT"]:
        connection.commit()


def write_first(connection: Any, stamp: DatabaseIdentity) -> None:
    """As :func:`write`, into a database that nobody has stamped, on a connection that has no alias."""
    with connection.cursor() as cursor:
        cursor.execute(_CREATE)
        cursor.execute(f"INSERT INTO {TABLE} ({_COLUMNS}) VALUES (%s, %s, %s, %s)", list(stamp))


class VerifiedClient(_Client):
    """Mixed into a backend's command line client: ``dbshell`` connects by itself, once the stamp was compared."""

    def runshell(self, parameters: Any) -> None:
        """Django's (db/backends/base/client.py), which is all that ``dbshell`` calls."""
        connection: Any = self.connection
        if connection.database.incarnation:
            connection.ensure_connection()
            connection.close()
        super().runshell(parameters)


def verify_before_shell(client: Any) -> None:
    """Make a connection's command line client one that compares first."""
    own: Any = type(client)
    client.__class__ = _verified(own)


@cache
def _verified(client: Any) -> Any:
    return client if issubclass(client, VerifiedClient) else type(client.__name__, (VerifiedClient, client), {})


def _read(wrapper: Any) -> list[DatabaseIdentity]:
    """Not by Django's cursor: a statement of ours is nobody's query, and no wrapper of ``execute`` sees it."""
    try:
        with wrapper.wrap_database_errors:
            cursor = wrapper.connection.cursor()
            try:
                cursor.execute(_SELECT)
                found = [DatabaseIdentity(*row) for row in cursor.fetchall()]
            finally:
                cursor.close()
    except ProgrammingError:  # there is no such table, or it is not ours to read
        found = []
    except OperationalError as error:
        if wrapper.vendor != "sqlite" or "no such table" not in str(error):
            raise
        found = []
    if not wrapper.settings_dict["AUTOCOMMIT"]:
        wrapper.connection.rollback()  # of the transaction that the driver began with this statement
    return found


def _refused(database: Database, found: list[DatabaseIdentity]) -> WrongDatabase:
    said = ", ".join(f"tenant {one.tenant_id!r} of service {one.service!r} ({one.alias})" for one in found)
    what = f"is that of {said}" if said else "does not say whose it is"
    if said and all(one.tenant_id == database.tenant_id for one in found):
        what += ", of another incarnation or alias"
    error = WrongDatabase(
        f"the database that the record of tenant {database.tenant_id!r} names for {database.template!r} {what}: "
        f"correct the record, or, if this database is the tenant's, run 'manage.py tenant adopt {database.tenant_id}'",
        database.tenant_id,
    )
    known = tenant_context_manager.prepared.get(database.tenant_id)
    tenant_context_manager.wrong_databases[database.tenant_id] = known.revision if known else 0
    logger.error("%s", error, extra={"tenant_id": database.tenant_id})
    return error
