"""Where a demo keeps its things, and which processes belong to it."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from demo_stack.errors import DemoError

ROOT = Path(__file__).resolve().parents[2]
SITE = ROOT / "mt_site"
# A socket's path ends at 107 bytes (103 on some systems); the longest of ours is PostgreSQL's.
LONGEST_FOLDER = 103 - len("/.s.PGSQL.5432")


@dataclass(frozen=True)
class State:
    """The folder of one demo: data, logs, lock, and a note about what runs."""

    folder: Path

    @classmethod
    def default(cls) -> State:
        return cls(Path(os.environ.get("MT_SITE_DEMO_DIR") or ROOT / ".demo").resolve())

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    @property
    def _note(self) -> Path:
        return self.folder / "running.json"

    def read(self) -> dict[str, Any]:
        try:
            note: dict[str, Any] = json.loads(self._note.read_text())
        except (FileNotFoundError, ValueError):
            return {}
        return note

    def write(self, **changes: Any) -> None:
        note = {**self.read(), **changes}
        partial = self._note.with_suffix(".new")
        partial.write_text(json.dumps(note, indent=1))
        partial.replace(self._note)

    def prepare(self) -> None:
        for folder in (self.folder, self.logs, self.folder / "redis"):
            folder.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the demo's lock; the system drops it with the process, however that ends."""
        with (self.folder / "lock").open("w") as lock:
            if not _try_lock(lock):
                raise DemoError(f"a demo is already running here ({self._where()}); stop it with Ctrl-C first")
            yield

    def is_running(self) -> bool:
        try:
            with (self.folder / "lock").open("r+") as lock:
                return not _try_lock(lock)
        except FileNotFoundError:
            return False

    def _where(self) -> str:
        port = self.read().get("port")
        return f"port {port}" if port else "starting"

    def sockets(self) -> Path:
        """Return the private folder of the sockets: in here, or a short one where this path is long."""
        own = self.folder / "run"
        if _fit_for_sockets(own):
            own.mkdir(mode=0o700, exist_ok=True)
            return own
        return self._remembered() or self._new_sockets()

    def _remembered(self) -> Path | None:
        folder = Path(self.read().get("sockets") or "/nonexistent")
        return folder if folder.is_dir() and folder.stat().st_mode & 0o077 == 0 else None

    def _new_sockets(self) -> Path:
        for base in (Path(tempfile.gettempdir()), Path("/tmp")):
            if _fit_for_sockets(base / "mt-site-12345678"):
                return Path(tempfile.mkdtemp(prefix="mt-site-", dir=base))
        raise DemoError("no folder has a path that is short enough for sockets; set TMPDIR to one")

    def finish(self) -> None:
        """Remove what belongs to one run only."""
        shutil.rmtree(self.read().get("sockets") or self.folder / "run", ignore_errors=True)
        self._note.unlink(missing_ok=True)

    def remove(self) -> None:
        if self.is_running():
            raise DemoError("the demo is running; stop it with Ctrl-C first")
        self.finish()
        shutil.rmtree(self.folder, ignore_errors=True)


def _try_lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _fit_for_sockets(folder: Path) -> bool:
    """Short, and free of characters that URLs and PostgreSQL's options would need quoted."""
    return len(os.fsencode(folder)) <= LONGEST_FOLDER and bool(re.fullmatch(r"[\w./-]+", str(folder), re.ASCII))
