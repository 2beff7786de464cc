"""The tenants' PostgreSQL databases."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

import psycopg
from psycopg import sql

ADMINISTRATION = "postgres"  # the database from which others are created


def create_databases(server: str, names: Iterable[str]) -> None:
    """Create those that are missing. ``server``: how to connect to it, as libpq takes it."""
    with psycopg.connect(server, dbname=ADMINISTRATION, autocommit=True) as connection:
        existing = {name for (name,) in connection.execute("SELECT datname FROM pg_database")}
        for name in names:
            if name not in existing:
                with suppress(psycopg.errors.DuplicateDatabase):  # another set-up is at work, too
                    connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))


def on_sockets(folder: object) -> str:
    """The demo's own server, on a Unix socket in ``folder``."""
    return f"host={folder} port=5432 user=postgres"
