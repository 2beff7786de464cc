"""Databases that are files: made beside their place, stamped, and then put into it, which is done or not."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tenant_router.exceptions import ProvisioningError
from tenant_router.orm_backends.base import DatabaseIdentity
from tenant_router.orm_backends.django_orm import identity_stamp
from tenant_router.orm_backends.django_orm.private_connections import connected

_BESIDE = ("-journal", "-wal", "-shm")  # other files of a database


class SqliteFiles:
    """The files of one template: ``settings`` are the template's."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._settings = settings

    def check(self, stamp: DatabaseIdentity, names: Mapping[str, str], source: str) -> None:
        """Refuse what could not be made."""
        name = names["database"]
        if name == ":memory:" or name.startswith("file:"):
            raise ProvisioningError(f"{name!r} is no path of a file, and only files can be made")
        folder = os.path.dirname(name)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise ProvisioningError(f"the folder {folder!r} does not exist, or is not to be written to")
        self._is_made(stamp, name)
        if source and not os.path.exists(source):
            raise ProvisioningError(
                f"there is no reference database {source!r}: run 'manage.py tenant template refresh' first"
            )

    def create(
        self, stamp: DatabaseIdentity, names: Mapping[str, str], settings: Mapping[str, Any], source: str
    ) -> bool:
        """Make the file; ``False`` if it is there."""
        name, unfinished = names["database"], _unfinished(stamp, names["database"])
        _remove(unfinished)
        if self._is_made(stamp, name):
            return False
        with connected({**self._settings, "NAME": unfinished}) as made:
            if source:
                with connected({**self._settings, "NAME": source}) as reference:
                    reference.connection.backup(made.connection)
            identity_stamp.write_first(made, stamp)
        try:
            os.link(unfinished, name)  # which fails where there is a file, as renaming would not
        except FileExistsError as error:
            raise _taken(name) from error
        finally:
            _remove(unfinished)
        return True

    def remove(self, stamp: DatabaseIdentity, names: Mapping[str, str]) -> list[str]:
        """Remove the file if it has the ``stamp``."""
        name = names["database"]
        ours = os.path.exists(name) and self._is_ours(stamp, name)
        removed = [f"file {found}" for found in (name,) * ours + (_unfinished(stamp, name),) if os.path.exists(found)]
        for found in (name,) * ours + (_unfinished(stamp, name),):
            _remove(found)
        return removed

    def make_reference(self, name: str) -> None:
        """Nothing: who connects to a file makes it."""

    def lock_reference(self, name: str) -> None:
        """Nothing: a file is copied whoever is connected to it."""

    def _is_made(self, stamp: DatabaseIdentity, name: str) -> bool:
        if not os.path.lexists(name):
            return False
        if not self._is_ours(stamp, name):
            raise _taken(name)
        return True

    def _is_ours(self, stamp: DatabaseIdentity, name: str) -> bool:
        """Whether it was made for this incarnation, be it for another alias: a tenant's may share a database."""
        with connected({**self._settings, "NAME": name}) as connection:
            return any(found[:3] == stamp[:3] for found in identity_stamp.read(connection))


def _taken(name: str) -> ProvisioningError:
    return ProvisioningError(f"the file {name!r} exists already, and was not made by this command")


def _unfinished(stamp: DatabaseIdentity, name: str) -> str:
    return f"{name}.{stamp.incarnation}.new"


def _remove(name: str) -> None:
    for found in (name, *(name + ending for ending in _BESIDE)):
        with suppress(FileNotFoundError):
            Path(found).unlink()
