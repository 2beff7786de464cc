"""What the databases of tenants are called whose records do not say it."""

from __future__ import annotations

import hashlib
import os
import re
import string
from typing import Any

from tenant_router.exceptions import ConfigurationError
from tenant_router.orm_backends.django_orm import sqlite_names

FIELDS = {"tenant", "alias", "service"}
POSTGRESQL_BYTES = 63  # of a name, unless the server was compiled otherwise: NAMEDATALEN - 1
FILE_BYTES = 255  # of a file's name, with nearly all file systems
SUFFIXES = 48  # bytes for what is appended to it: SQLite's "-journal", and ".new" with an incarnation
_HASH = 8  # hex digits


def check_pattern(pattern: Any, aliases: int) -> None:
    """Raise ``ConfigurationError`` for a ``NAME_PATTERN`` that gives two databases one name, or none."""
    try:
        fields = {field for _, field, *_ in string.Formatter().parse(pattern) if field is not None}
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"OPTIONS['NAME_PATTERN'] is no pattern such as '{{tenant}}': {error}") from error
    needed = {"tenant", "alias"} if aliases > 1 else {"tenant"}
    if not needed <= fields <= FIELDS:
        raise ConfigurationError(
            f"OPTIONS['NAME_PATTERN'] must have the fields {', '.join(sorted(needed))}, and none but "
            f"{', '.join(sorted(FIELDS))}"
        )


def default_pattern(aliases: int) -> str:
    """What names are made by where the settings have no ``NAME_PATTERN``."""
    return "{tenant}_{alias}" if aliases > 1 else "{tenant}"


def postgresql_name(wanted: str) -> str:
    """A name of letters, digits and ``_`` that PostgreSQL does not cut; one that differs from ``wanted`` has a hash."""
    name = re.sub(r"\W", "_", wanted, flags=re.ASCII)
    return name if name == wanted and len(name) <= POSTGRESQL_BYTES else _hashed(wanted, name, POSTGRESQL_BYTES)


def sqlite_name(wanted: str, template: str) -> str:
    """The path of a file, in the folder of the ``template``'s unless it says another one."""
    folder, name = os.path.split(os.path.join(os.path.dirname(sqlite_names.absolute(template)), wanted))
    if len(os.fsencode(name)) <= FILE_BYTES - SUFFIXES:
        return os.path.join(folder, name)
    stem, suffix = os.path.splitext(name)
    return os.path.join(folder, _hashed(wanted, stem, FILE_BYTES - SUFFIXES - len(os.fsencode(suffix))) + suffix)


def sqlite_suffix(template: str) -> str:
    """What the names of files end with, as that of the template's."""
    return os.path.splitext(template)[1] or ".sqlite3"


def _hashed(wanted: str, name: str, most: int) -> str:
    told = hashlib.sha256(wanted.encode()).hexdigest()[:_HASH]
    return f"{os.fsencode(name)[: most - _HASH - 1].decode(errors='ignore')}_{told}"
