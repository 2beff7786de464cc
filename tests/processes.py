"""Real processes of the tests' project: start one, follow its log, end its whole tree."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from contextlib import suppress
from pathlib import Path

import httpx
import psutil

from tenant_router.config_store import codec
from tenant_router.config_store.backends.redis import RedisStore
from tenant_router.config_store.base import DELETED, Op
from tenant_router.config_store.serializers.json import JSONSerializer
from tests.servers import free_port
from tests.tenants import eventually

ROOT = Path(__file__).resolve().parent.parent
MANAGE = [sys.executable, str(ROOT / "tests" / "manage.py")]
# With the space after it: the end of a line that is being written would be a number that is too small.
_APPLIED = re.compile(r"applied tenant=(\S+) revision=(\d+) .*?pid=(\d+) monotonic=([\d.]+) ")


class Process:
    """One started command and everything that it starts; its output goes to a file."""

    def __init__(self, arguments, environment, log, folder=ROOT):
        self.arguments, self.environment, self.log_file, self.folder = arguments, environment, log, folder

    def __enter__(self):
        with self.log_file.open("wb") as log:
            self._popen = subprocess.Popen(
                self.arguments,
                cwd=self.folder,
                env={"PYTHONFAULTHANDLER": "1", **os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return self

    def __exit__(self, *exception):
        tree = self.tree()
        if self._popen.returncode is None:  # else the pid may be another's by now
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)  # with what it has started since its tree was read
        self._popen.wait()
        _signal(tree, signal.SIGKILL)

    @property
    def pid(self):
        return self._popen.pid

    @property
    def log(self):
        return self.log_file.read_text(errors="replace")

    def wait_for(self, text, times=1, timeout=60.0):
        """Wait until the log holds ``text`` so many times."""

        def found():
            ended = self._popen.poll()  # before the log is read: what was written last counts, too
            if self.log.count(text) >= times:
                return True
            assert ended is None, f"it ended with {ended}:\n{self.log}"
            return False

        try:
            eventually(found, timeout)
        except AssertionError as error:
            raise AssertionError(f"no {text!r} within {timeout} s:\n{self.log}") from error

    def tree(self):
        """This process and all its descendants."""
        try:
            own = psutil.Process(self.pid)
            return [own, *own.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def children(self):
        """The pids of the descendants that are workers (Python's resource tracker is none)."""
        return {process.pid for process in self.tree()[1:] if _works(process)}

    def applied(self, tenant_id, revision):
        """Process id -> time.monotonic() at which that process had ``tenant_id`` at ``revision`` or later."""
        found = {}
        for tenant, at_revision, pid, at in _APPLIED.findall(self.log):
            if tenant == tenant_id and int(at_revision) >= revision:
                found.setdefault(int(pid), float(at))
        return found

    def wait_applied(self, pids, tenant_id, revision, timeout=30.0):
        """Wait until each of ``pids`` has applied it; returns when each of them did."""
        try:
            eventually(lambda: set(pids) <= self.applied(tenant_id, revision).keys(), timeout)
        except AssertionError as error:
            raise AssertionError(f"{pids} have not all applied {tenant_id} at {revision}:\n{self.log}") from error
        return self.applied(tenant_id, revision)

    def wait_ended(self, timeout=60.0):
        """Wait until it ends by itself and return its exit code."""
        try:
            return self._popen.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it does not end within {timeout} s\n{self._where_it_hangs()}") from None

    def terminate(self, timeout=60.0):
        """Send SIGTERM; return the exit code when the whole tree is gone."""
        tree = self.tree()
        self._popen.send_signal(signal.SIGTERM)
        code = self.wait_ended(timeout)
        _, alive = psutil.wait_procs(tree, timeout=30)
        assert not alive, f"left behind: {alive}\n{self.log}"
        return code

    def _where_it_hangs(self):
        """The log, and in it the stacks of all threads, which ``PYTHONFAULTHANDLER`` writes on SIGABRT."""
        _signal(self.tree(), signal.SIGABRT)
        time.sleep(2)
        return self.log


def _signal(processes, number):
    """Send it to those that are still there."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def _works(process):
    """A process that is on its way out has an empty command line, one that is gone has none."""
    try:
        command = " ".join(process.cmdline())
    except psutil.Error:
        return False
    return bool(command) and "resource_tracker" not in command


class Project:
    """The tests' project on a real Redis: its tenants, and the environment of its processes."""

    def __init__(self, redis_server, directory, **environment):
        self.directory, self.service = directory, f"s{uuid.uuid4().hex[:8]}"
        self.url = f"unix://{redis_server.socket}"
        self.broker = f"redis+socket://{redis_server.socket}?virtual_host=1"
        self.store = RedisStore(self.service, {"URL": self.url}, {"socket_timeout": 30})
        self.environment = {
            "DJANGO_SETTINGS_MODULE": "tests.settings_processes",
            "PYTHONWARNINGS": "ignore",
            "TESTS_SERVICE": self.service,
            "TESTS_REDIS_URL": self.url,
            "TESTS_BROKER_URL": self.broker,
            "TESTS_RESULT_URL": f"redis+socket://{redis_server.socket}?virtual_host=2",
            "TESTS_QUEUE": self.service,
            **environment,
        }
        self._logs = 0

    def start(self, *arguments, **environment):
        """A command of the project, to be entered; without a path it is Python's ``-m``."""
        self._logs += 1
        log = self.directory / f"{self.service}-{self._logs}.log"
        return Process([sys.executable, *arguments], {**self.environment, **environment}, log)

    def manage(self, *arguments, **environment):
        """Run a management command to its end and return its output."""
        done = subprocess.run(
            [*MANAGE, *arguments],
            cwd=ROOT,
            env={**os.environ, **self.environment, **environment},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def record(self, database, **extra):
        return {"orm_config": {"django_orm": {"default": {"NAME": str(database)}}}, **extra}

    def put(self, tenant_id, record, state="A"):
        """Create or change a tenant behind the back of all processes; returns the revision."""
        return self.commit(Op(tenant_id, state, codec.encode(tenant_id, record, JSONSerializer())))

    def delete(self, tenant_id):
        return self.commit(Op(tenant_id, DELETED))

    def commit(self, *ops):
        return self.store.commit(list(ops), request_id=uuid.uuid4().hex)

    def load(self, **records):
        """Load tenants with ``load_tenant_config -f`` in a process of its own; returns the last tenant's revision."""
        name = self.directory / f"{uuid.uuid4().hex}.json"
        tenants = {tenant_id: {self.service: record} for tenant_id, record in records.items()}
        name.write_text(json.dumps({"mapping_metadata": {}, "tenant_config": tenants}))
        self.manage("load_tenant_config", "-f", str(name))
        return max(stored.rev for stored in self.store.get_many(list(records)).values())


# A server closes a connection that was idle for a while, be it while the next request is on its way.
ALONE = httpx.Limits(max_keepalive_connections=0)


class Site:
    """A web server of the project, asked as its tenants' visitors ask it."""

    def __init__(self, port=None):
        self.port = port or free_port()
        self._client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=60, verify=False, limits=ALONE)

    def get(self, tenant_id, path, **options):
        return self._client.get(path, headers={"Host": tenant_id}, **options)

    def post(self, tenant_id, path, **options):
        return self._client.post(path, headers={"Host": tenant_id}, **options)

    def wait_until_up(self, process):
        def up():
            assert process._popen.poll() is None, process.log
            try:
                return self.get("nobody.test", "/whoami/").status_code == 404
            except httpx.TransportError:
                return False

        eventually(up, 60)

    def close(self):
        self._client.close()


def latencies(begun, applied):
    """Print and return how many milliseconds after ``begun`` each process had applied a change."""
    found = {pid: round((at - begun) * 1000, 1) for pid, at in applied.items()}
    print(f"milliseconds from commit to applied, by pid: {found}")
    return found


def now():
    return time.monotonic()
