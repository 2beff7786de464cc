"""A demo in a process of its own, and a browser-like client for it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPResponse
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import psutil
import psycopg

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 120.0
STOP_SECONDS = 90.0
WAIT_SECONDS = 60.0  # for what takes a moment on a machine that has time


def demo_command(state: Path, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run one demo command to its end."""
    env = _env(state) | environment
    return subprocess.run(_command(*arguments), env=env, capture_output=True, text=True, timeout=150)


def _command(*arguments: str) -> list[str]:
    return [sys.executable, str(ROOT / "mt_site" / "demo.py"), *arguments]


def _env(state: Path) -> dict[str, str]:
    return {**os.environ, "MT_SITE_DEMO_DIR": str(state)}


def eventually(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.05)
    return result


def command_of(process: psutil.Process) -> list[str]:
    """Its command line, empty for a process that has ended meanwhile."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []


class Demo:
    def __init__(self, state: Path, *options: str) -> None:
        self.state = state
        self.log = state.with_name(state.name + ".out")
        with self.log.open("w") as output:
            self.process = subprocess.Popen(
                _command("up", "--port", "0", *options), env=_env(state), stdout=output, stderr=subprocess.STDOUT
            )

    @property
    def output(self) -> str:
        return self.log.read_text()

    @property
    def note(self) -> dict[str, Any]:
        return json.loads((self.state / "running.json").read_text())

    @property
    def port(self) -> int:
        return self.note["port"]

    def wait_until_ready(self) -> "Demo":
        eventually(self._ready_or_dead, START_SECONDS, "the demo is ready")
        assert self.process.poll() is None, self.output
        return self

    def _ready_or_dead(self) -> bool:
        return "Ctrl-C stops everything" in self.output or self.process.poll() is not None

    def family(self) -> list[psutil.Process]:
        """Everything that the demo started and that still runs."""
        try:
            return psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def servers(self) -> set[int]:
        """The processes that stay; PostgreSQL has one for each connection, and they come and go."""
        own = psutil.Process(self.process.pid).children()
        staying = [one for one in own if Path("".join(command_of(one)[:1])).name != "postgres"]
        return {one.pid for one in own} | {child.pid for one in staying for child in one.children(recursive=True)}

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(STOP_SECONDS)

    def command(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return demo_command(self.state, *arguments)

    def manage(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run ``manage.py`` with the environment of the demo's own web process."""
        web = next(process for process in self.family() if "gunicorn" in command_of(process))
        command = [sys.executable, "manage.py", *arguments]
        return subprocess.run(
            command, cwd=ROOT / "mt_site", env=web.environ(), capture_output=True, text=True, timeout=120
        )

    def url(self, name: str) -> str:
        return f"http://{name}.localhost:{self.port}/"

    def client(self, host: str) -> "Client":
        return Client(self.port, host)

    def patients_by_database(self) -> dict[str, list[str]]:
        """Read the tables themselves, past the site: database -> names of patients."""
        names = [row[0] for row in self._rows("postgres", "SELECT datname FROM pg_database WHERE NOT datistemplate")]
        return {name: self._patients(name) for name in names if name != "postgres"}

    def _patients(self, database: str) -> list[str]:
        return [row[0] for row in self._rows(database, "SELECT name FROM patients_patient")]

    def _rows(self, database: str, query: str) -> list[tuple[str]]:
        with psycopg.connect(host=self.note["sockets"], user="postgres", dbname=database) as connection:
            return connection.execute(query).fetchall()


@dataclass
class Answer:
    status: int
    body: str

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Client:
    """One visitor of one host. Every request is a new connection, so that all workers get some."""

    port: int
    host: str
    cookies: SimpleCookie = field(default_factory=SimpleCookie)

    def get(self, path: str) -> Answer:
        return self._request("GET", path, None, {})

    def add_patient(self, body: Any) -> Answer:
        token = self.cookies["csrftoken"].value if "csrftoken" in self.cookies else ""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self._request("POST", "/api/patients/", data, {"X-CSRFToken": token, "Content-Type": "application/json"})

    def log_in(self, user: str, password: str) -> int:
        token = self.cookies["csrftoken"].value
        form = urlencode({"username": user, "password": password, "csrfmiddlewaretoken": token}).encode()
        return self._request(
            "POST", "/admin/login/?next=/admin/", form, {"Content-Type": "application/x-www-form-urlencoded"}
        ).status

    def names(self, path: str) -> list[str]:
        answer = self.get(path)
        assert answer.status == 200, (self.host, answer)
        return [row["name"] for row in answer.json]

    def _request(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> Answer:
        cookies = "; ".join(f"{name}={morsel.value}" for name, morsel in self.cookies.items())
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=WAIT_SECONDS)) as connection:
            connection.request(method, path, body, {"Host": f"{self.host}:{self.port}", "Cookie": cookies, **headers})
            return self._read(connection.getresponse())

    def _read(self, response: HTTPResponse) -> Answer:
        for value in response.headers.get_all("Set-Cookie", []):
            self.cookies.load(value)
        return Answer(response.status, response.read().decode())
