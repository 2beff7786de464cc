"""A file that its owner alone reads and writes, at a path that an operator chose."""

from __future__ import annotations

import os
import stat
from pathlib import Path

MODE = 0o600
_BESIDE = ("-journal", "-wal", "-shm")  # what SQLite opens next to a file


def claim(path: Path) -> None:
    """Create the file, or make the one that is there its owner's alone.

    Raises ``OSError`` for a symlink, for what is no regular file or another user's, and where anybody could put
    another file in its place.
    """
    _check_folder(path.parent)
    # not blocking: a pipe without a reader would wait for one
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK, MODE)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
            raise OSError("it is no regular file of one name")
        if found.st_uid != os.geteuid():
            raise OSError("it belongs to another user")
        os.fchmod(descriptor, MODE)
    finally:
        os.close(descriptor)
    _check_beside(path)


def check_readable(path: Path) -> None:
    """Raise ``OSError`` for what is no regular file: opening a pipe waits for who writes into it, maybe for ever."""
    if path.exists() and not path.is_file():
        raise OSError("it is no regular file")
    _check_beside(path)


def _check_beside(path: Path) -> None:
    for beside in (f"{path}{suffix}" for suffix in _BESIDE):
        if os.path.lexists(beside) and (os.path.islink(beside) or not os.path.isfile(beside)):
            raise OSError(f"{beside} is a symlink, or no regular file")


def _check_folder(folder: Path) -> None:
    mode = folder.stat().st_mode
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        raise OSError(f"anybody may replace files in {folder}")
