"""A MongoDB-protocol server of a test's own, which it may stop, freeze and start again; its data is in memory."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from tests.servers import free_port, freeze
from tests.services import require

START_TIMEOUT = 60.0  # seconds


def services_home() -> Path:
    """Where the test services were built, by the same rule as the script that builds them."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("TENANT_ROUTER_SERVICES_HOME") or cache / "tenant_router-test-services") / "mongo"


class MongoServer:
    """Listens on ``port`` of 127.0.0.1, which stays the same over ``stop`` and ``start``; the data does not."""

    def __init__(self) -> None:
        built = services_home()
        require(
            shutil.which("java") and (built / ".built").exists(), "no MongoDB server to start: run `services up` once"
        )
        self._classes = f"{built / 'out'}:{built / 'lib'}/*"
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"mongodb://127.0.0.1:{self.port}"

    def start(self) -> None:
        small = ["-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        command = ["java", *small, "-cp", self._classes, "MongoServerMain", str(self.port)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + START_TIMEOUT
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the MongoDB server did not start")
            time.sleep(0.05)
        if self._process.poll() is not None:
            raise RuntimeError(f"another server has port {self.port}")

    def stop(self) -> None:
        if self._process is not None:
            self.resume()
            self._process.kill()
            self._process.wait(START_TIMEOUT)
            self._process = None

    def pause(self) -> None:
        """Freeze it: it accepts connections and never answers."""
        assert self._process is not None
        freeze(self._process.pid)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def _answers(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
