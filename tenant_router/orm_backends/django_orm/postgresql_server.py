"""Databases and roles of a PostgreSQL server, each with a mark that says for whom it was made."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
from collections.abc import Mapping
from typing import Any

from django.db import DatabaseError
from django.db.backends.postgresql.psycopg_any import sql

from tenant_router.exceptions import ProvisioningError
from tenant_router.orm_backends.django_orm.private_connections import connected
from tenant_router.orm_backends.provisioning import DatabaseIdentity, Names

# WAL_LOG against FILE_COPY on PostgreSQL 18 with fsync: 136 MB take 0.46 and 1.14 s, 265 MB 0.75 and 0.71 s, 1,036 MB
# 5.6 and 1.2 s. And FILE_COPY makes two checkpoints, which a busy server pays for with all of its databases.
FILE_COPY_FROM = 256 * 1024 * 1024  # bytes of the reference database
_STRATEGIES = 15_00_00  # the version that has them
_ITERATIONS = 4096  # of SCRAM, as PostgreSQL's own scram_iterations


class PostgresServer:
    """One server, seen by a connection that may create databases: ``maintenance`` are its settings."""

    def __init__(self, maintenance: Mapping[str, Any]) -> None:
        self._maintenance = maintenance

    def check(self, stamp: DatabaseIdentity, names: Names, source: str) -> None:
        """Refuse what could not be made: names that are taken or too long, rights that are missing."""
        with connected(self._maintenance) as server:
            most = int(_one(server, "SHOW max_identifier_length"))
            for kind, name in names.items():
                if len(name.encode()) > most:
                    raise ProvisioningError(f"the server's names end at {most} bytes, and the {kind} {name!r} has more")
                self._is_made(server, stamp, kind, name)
            _check_rights(server, roles="role" in names)
            if source and not _exists(server, "database", source):
                raise ProvisioningError(
                    f"there is no reference database {source!r}: run 'manage.py tenant template refresh' first"
                )

    def create(self, stamp: DatabaseIdentity, names: Names, settings: Mapping[str, Any], source: str) -> bool:
        """Make what is missing; ``False`` if the database is there. ``settings``: of who connects to it later."""
        with connected(self._maintenance) as server:
            if "role" in names:
                self._make_role(server, stamp, names["role"], str.__str__(settings["PASSWORD"]))
            made = not self._is_made(server, stamp, "database", names["database"])
            if made:
                self._make_database(server, stamp, names["database"], source)
            owner = self._owner(server, settings, names)
            self._hand_over(server, names, owner)
        if owner and (source or not made):
            self._hand_over_contents(names["database"], owner)
        return made

    def remove(self, stamp: DatabaseIdentity, names: Names) -> list[str]:
        """Remove what has the mark of ``stamp``; returns what that was."""
        removed = []
        with connected(self._maintenance) as server:
            for kind, name in (("database", names["database"]), ("database", _unfinished(stamp))):
                if _mark(server, kind, name) == _marked(stamp) or name == _unfinished(stamp):
                    removed += [f"database {name}"] if _drop_database(server, name) else []
            role = names.get("role", "")
            if role and _mark(server, "role", role) == _marked(stamp):
                _run(server, "DROP ROLE {}", sql.Identifier(role))
                removed.append(f"role {role}")
        return removed

    def make_reference(self, name: str) -> None:
        """Make a database for copies, if it is missing, and let it be connected to."""
        with connected(self._maintenance) as server:
            if not _exists(server, "database", name):
                _run(server, "CREATE DATABASE {}", sql.Identifier(name))
            _run(server, "ALTER DATABASE {} WITH ALLOW_CONNECTIONS true", sql.Identifier(name))

    def lock_reference(self, name: str) -> None:
        """Let nobody connect to it: a database that somebody is connected to cannot be copied."""
        with connected(self._maintenance) as server:
            _run(server, "ALTER DATABASE {} WITH ALLOW_CONNECTIONS false", sql.Identifier(name))

    # --- inside ---

    def _is_made(self, server: Any, stamp: DatabaseIdentity, kind: str, name: str) -> bool:
        """Whether we have made it; somebody else's is refused."""
        if not _exists(server, kind, name):
            return False
        if _mark(server, kind, name) != _marked(stamp):
            raise ProvisioningError(f"the {kind} {name!r} exists already, and was not made by this command")
        return True

    def _make_role(self, server: Any, stamp: DatabaseIdentity, name: str, password: str) -> None:
        """The server is told a verifier and never the password: its log may show statements."""
        verb = "ALTER" if self._is_made(server, stamp, "role", name) else "CREATE"
        role = sql.Identifier(name)
        server.set_autocommit(False)
        try:  # a role and its mark in one transaction
            _run(server, verb + " ROLE {} LOGIN PASSWORD {}", role, sql.Literal(scram_verifier(password)))
            _run(server, "COMMENT ON ROLE {} IS {}", role, sql.Literal(_marked(stamp)))
            server.commit()
        except BaseException:
            server.rollback()
            raise
        finally:
            server.set_autocommit(True)

    def _make_database(self, server: Any, stamp: DatabaseIdentity, name: str, source: str) -> None:
        """Under a name that nobody else knows, until it is marked: CREATE DATABASE runs in no transaction."""
        unfinished = _unfinished(stamp)
        _drop_database(server, unfinished)
        _copy(server, unfinished, source)
        _run(server, "COMMENT ON DATABASE {} IS {}", sql.Identifier(unfinished), sql.Literal(_marked(stamp)))
        _run(server, "ALTER DATABASE {} RENAME TO {}", sql.Identifier(unfinished), sql.Identifier(name))

    def _owner(self, server: Any, settings: Mapping[str, Any], names: Names) -> str:
        """Whose the database is to be; empty if it is that already, because the same role makes it and uses it."""
        wanted = names.get("role") or str(settings.get("USER") or "")
        return "" if wanted == _one(server, "SELECT current_user") else wanted

    def _hand_over(self, server: Any, names: Names, owner: str) -> None:
        database = sql.Identifier(names["database"])
        if owner and "role" in names and not _one(server, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user"):
            # who gives something to a role must be a member of it
            _run(server, "GRANT {} TO CURRENT_USER", sql.Identifier(owner))
        if owner:
            _run(server, "ALTER DATABASE {} OWNER TO {}", database, sql.Identifier(owner))
        if "role" in names:
            _run(server, "REVOKE CONNECT ON DATABASE {} FROM PUBLIC", database)

    def _hand_over_contents(self, name: str, owner: str) -> None:
        """What a copy has is its maker's. (REASSIGN OWNED would take along all other databases of that role.)"""
        with connected({**self._maintenance, "NAME": name}) as copy, copy.cursor() as cursor:
            cursor.execute(_OWNED, [owner] * 4)
            for (statement,) in cursor.fetchall():
                cursor.execute(statement)


# What belongs to the role that has made a copy, besides what extensions have made, and indexes and sequences of tables,
# which follow those.
_MINE = "(SELECT oid FROM pg_roles WHERE rolname = current_user) AND {0}.oid >= 16384"  # below are the system's own
_DEPENDS = "EXISTS (SELECT FROM pg_depend d WHERE d.classid = '{1}'::regclass AND d.objid = {0}.oid AND {2})"
_OWNED = f"""
SELECT format('ALTER SCHEMA %%I OWNER TO %%I', nspname, %s::text) FROM pg_namespace n
 WHERE nspowner = {_MINE.format("n")} AND NOT {_DEPENDS.format("n", "pg_namespace", "deptype = 'e'")}
UNION ALL
SELECT format('ALTER TABLE %%s OWNER TO %%I', c.oid::regclass, %s::text) FROM pg_class c
 WHERE relowner = {_MINE.format("c")} AND relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
   AND NOT {_DEPENDS.format("c", "pg_class", "(deptype = 'e' OR (relkind = 'S' AND deptype IN ('a', 'i')))")}
UNION ALL
SELECT format('ALTER ROUTINE %%s OWNER TO %%I', p.oid::regprocedure, %s::text) FROM pg_proc p
 WHERE proowner = {_MINE.format("p")} AND NOT {_DEPENDS.format("p", "pg_proc", "deptype = 'e'")}
UNION ALL
SELECT format('ALTER TYPE %%s OWNER TO %%I', t.oid::regtype, %s::text) FROM pg_type t
 WHERE typowner = {_MINE.format("t")} AND typtype IN ('e', 'd', 'r')
   AND NOT {_DEPENDS.format("t", "pg_type", "deptype = 'e'")}
"""


def scram_verifier(password: str) -> str:
    """What PostgreSQL keeps of a password in ASCII (RFC 5803); from it nobody can log in."""
    salt = os.urandom(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode("ascii"), salt, _ITERATIONS)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    told = [base64.b64encode(each).decode() for each in (salt, stored, server)]
    return f"SCRAM-SHA-256${_ITERATIONS}:{told[0]}${told[1]}:{told[2]}"


def _marked(stamp: DatabaseIdentity) -> str:
    """Without the alias: a tenant's template aliases may share a database."""
    return f"tenant_router: {stamp.service} {stamp.tenant_id} {stamp.incarnation}"


def _unfinished(stamp: DatabaseIdentity) -> str:
    """The name of a database that is being made."""
    told = hashlib.sha256(" ".join(stamp).encode()).hexdigest()
    return f"tenant_router_{told[:32]}"


def _check_rights(server: Any, roles: bool) -> None:
    with server.cursor() as cursor:
        cursor.execute(
            "SELECT rolname, rolsuper OR rolcreatedb, rolsuper OR rolcreaterole FROM pg_roles "
            "WHERE rolname = current_user"
        )
        name, may_create, may_create_roles = cursor.fetchone()
    for allowed, right in ((may_create, "CREATEDB"), (may_create_roles or not roles, "CREATEROLE")):
        if not allowed:
            raise ProvisioningError(
                f"the role {name!r} has no {right}: grant it, or name a role that has in OPTIONS['MAINTENANCE']"
            )


def _copy(server: Any, name: str, source: str) -> None:
    if not source:
        return _run(server, "CREATE DATABASE {}", sql.Identifier(name))
    statement = "CREATE DATABASE {} TEMPLATE {}"
    if server.pg_version >= _STRATEGIES:
        size = int(_one(server, "SELECT pg_database_size(%s)", source))
        statement += f" STRATEGY {'FILE_COPY' if size >= FILE_COPY_FROM else 'WAL_LOG'}"
    try:
        _run(server, statement, sql.Identifier(name), sql.Identifier(source))
    except DatabaseError as error:
        if getattr(error.__cause__, "sqlstate", getattr(error.__cause__, "pgcode", "")) != "55006":  # object_in_use
            raise
        raise ProvisioningError(
            f"somebody is connected to the reference database {source!r}, so it cannot be copied: end that session, or "
            "let 'manage.py tenant template refresh' end"
        ) from error


def _drop_database(server: Any, name: str) -> bool:
    if not _exists(server, "database", name):
        return False
    _run(
        server,
        "DROP DATABASE {} WITH (FORCE)" if server.pg_version >= 13_00_00 else "DROP DATABASE {}",
        sql.Identifier(name),
    )
    return True


def _exists(server: Any, kind: str, name: str) -> bool:
    catalog, column, _ = _CATALOGS[kind]
    return bool(_one(server, f"SELECT count(*) FROM {catalog} WHERE {column} = %s", name))


def _mark(server: Any, kind: str, name: str) -> Any:
    catalog, column, described = _CATALOGS[kind]
    return _one(server, f"SELECT max(shobj_description(oid, '{described}')) FROM {catalog} WHERE {column} = %s", name)


# Where they are, the column of their names, and what a comment on one is kept for.
_CATALOGS = {"database": ("pg_database", "datname", "pg_database"), "role": ("pg_roles", "rolname", "pg_authid")}


def _one(server: Any, statement: str, *values: str) -> Any:
    with server.cursor() as cursor:
        cursor.execute(statement, values or None)
        return cursor.fetchone()[0]


def _run(server: Any, statement: str, *parts: Any) -> None:
    """A statement whose names and values are put into it: those that define something take no parameters."""
    with server.cursor() as cursor:
        cursor.execute(sql.SQL(statement).format(*parts).as_string(server.connection))
