"""``tenant_command`` as people run it: in a process, on a terminal, interrupted, by fresh processes and by workers."""

import json
import os
import pty
import re
import shlex
import signal
import subprocess
import threading

import pytest

from tests.processes import MANAGE, ROOT, Project
from tests.tenants import eventually

QUIET = ["--without-gossip", "--without-mingle", "--without-heartbeat", "-l", "INFO", "-P", "prefork", "-c", "2"]
FOREVER = "import sys, time; print('begun', flush=True); time.sleep(300)"
LOG = re.compile(r"^(\S+ \| )?(INFO|WARNING|ERROR|CRITICAL) ")


class Fleet:
    """A project with three tenants, the third of which has no tables, and a folder for what its commands write."""

    def __init__(self, project, sqlite_file):
        self.project = project
        for name in ("acme.example.com", "acme.example.org"):
            project.put(name, project.record(sqlite_file(name)))
        project.put("globex.test", project.record(project.directory / "globex.db"))

    def run(self, *arguments, **environment):
        """Exit code, lines printed, and lines of errors without what was logged."""
        done = subprocess.run(
            [*MANAGE, "tenant_command", *arguments],
            cwd=ROOT,
            env={**os.environ, **self.project.environment, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )
        return (
            done.returncode,
            done.stdout.splitlines(),
            [one for one in done.stderr.splitlines() if not LOG.match(one)],
        )

    def start(self, *arguments):
        return self.project.start(MANAGE[1], "tenant_command", *arguments)


@pytest.fixture(scope="module")
def fleet(redis_server, sqlite_file, tmp_path_factory):
    project = Project(redis_server, tmp_path_factory.mktemp("fleet"), DJANGO_SETTINGS_MODULE="tests.settings_fleet")
    return Fleet(project, sqlite_file)


# --- fresh processes ---


def test_fresh_processes(fleet, tmp_path):
    report = tmp_path / "report.json"
    text = (
        "import os, sys; from tests.app.models import Note; from django.db import connection; "
        "print(connection.alias, os.getpid(), os.environ.get('TENANT_ID')); sys.stderr.write('e\\n'); "
        "sys.exit(3) if 'org' in connection.alias else Note.objects.count()"
    )
    code, out, err = fleet.run(
        ":all:", "--executor", "processes", "--jobs", "3", "--report", str(report), "--", "shell", "-v0", "-c", text,
        TENANT_ID="globex.test",
    )  # fmt: skip
    assert code == 1
    found = {line.split(" ")[0]: line.split(" ")[2:] for line in out}
    assert {name: words[0] for name, words in found.items()} == {name: f"{name}_default" for name in found}
    assert len({words[1] for words in found.values()}) == 3
    assert {words[2] for words in found.values()} == {"None"}  # what it starts by itself shall find no other tenant
    assert {f"{name} | e" for name in found} <= {*err}
    outcomes = {one["id"]: (one["exit_code"], one["error"]) for one in json.loads(report.read_text())["tenants"]}
    assert outcomes == {
        "acme.example.com": (0, ""),
        "acme.example.org": (3, "e"),
        "globex.test": (1, "django.db.utils.OperationalError: no such table: app_note"),
    }
    line = err[-1].partition("for exactly them: ")[2]
    assert shlex.split(line)[3:5] == ["acme.example.org", "globex.test"]


def test_a_tenant_command_by_fresh_processes(fleet):
    done = subprocess.run(
        [*MANAGE, "count_notes", "acme*", "--exclude", "*.org", "--executor", "processes", "--add", "p"],
        cwd=ROOT, env={**os.environ, **fleet.project.environment}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = ["1 notes", "p of acme.example.com", "counted at acme.example.com"]
    assert done.stdout.splitlines() == [f"acme.example.com | {line}" for line in lines]


# --- interrupted ---


@pytest.mark.parametrize("executor", ["sequential", "processes"])
def test_interrupted_once_it_finishes_what_runs(fleet, tmp_path, executor):
    go, report = tmp_path / "go", tmp_path / "report.json"
    text = f"import os, time; print('begun', flush=True)\nwhile not os.path.exists({str(go)!r}): time.sleep(0.01)"
    options = ["--executor", executor, "--jobs", "1", "--report", str(report)]
    with fleet.start("acme*", *options, "--", "shell", "-v0", "-c", text) as command:
        command.wait_for("acme.example.com | begun")
        os.kill(command.pid, signal.SIGINT)
        command.wait_for("interrupted: finishing acme.example.com first; press Ctrl-C again to stop at once")
        go.touch()
        assert command.wait_ended() == 130
        assert "CommandError: interrupted; not done for 1 of 2 (1 not run): acme.example.org; to run it" in command.log
    found = json.loads(report.read_text())
    assert found["interrupted"] is True
    assert [one["outcome"] for one in found["tenants"]] == ["ok", "not run"]


@pytest.mark.parametrize("executor", ["threads", "processes"])
def test_interrupted_twice_it_stops_at_once(fleet, tmp_path, executor):
    report = tmp_path / "report.json"
    options = ["--executor", executor, "--jobs", "1", "--report", str(report)]
    with fleet.start("acme*", *options, "--", "shell", "-v0", "-c", FOREVER) as command:
        command.wait_for("acme.example.com | begun")
        tree = command.tree()
        os.kill(command.pid, signal.SIGINT)
        command.wait_for("press Ctrl-C again")
        os.kill(command.pid, signal.SIGINT)
        assert command.wait_ended() == 130
        assert "(1 not run, 1 stopped): acme.example.com, acme.example.org" in command.log
        eventually(lambda: not any(process.is_running() for process in tree[1:]))
    assert [one["outcome"] for one in json.loads(report.read_text())["tenants"]] == ["stopped", "not run"]


# --- a terminal ---


class Screen:
    """A command on a terminal of its own."""

    def __init__(self, environment, *arguments):
        self._pid, self._master = pty.fork()
        if self._pid == 0:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.chdir(ROOT)
            os.execve(MANAGE[0], [*MANAGE, *arguments], {**os.environ, **environment, "TERM": "xterm", "COLUMNS": "99"})
        self._pieces = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    @property
    def shown(self):
        return b"".join(self._pieces).decode(errors="replace")

    def answer(self, question, keys):
        eventually(lambda: question in self.shown)
        os.write(self._master, keys)

    def end(self):
        """The exit code, and what was shown, without its colours."""
        _, status = os.waitpid(self._pid, 0)
        self._reader.join(60)
        os.close(self._master)
        return os.waitstatus_to_exitcode(status), re.sub(r"\x1b\[[\d;]*m", "", self.shown)

    def _read(self):
        try:
            while piece := os.read(self._master, 65536):
                self._pieces.append(piece)
        except OSError:  # the command has closed its end
            pass


def test_on_a_terminal_it_asks_takes_short_names_and_shows_how_far_it_is(fleet):
    screen = Screen(fleet.project.environment, "tenant_command", "shell -v0 -c \"print('shown'); 1/0\"")
    screen.answer("Which tenants", b"globex acme.example.com\n")
    code, shown = screen.end()
    assert code == 1
    lines = shown.replace("\x1b[2K", "\r\n").splitlines()
    assert "globex.test | shown" in lines  # above the bar
    assert any(line.startswith("acme.example.com: FAILED: ZeroDivisionError") for line in lines)
    assert re.search(r"2/2 [\d.]+/s 0:00:00", shown)
    assert "not done for 2 of 2 (2 failed): globex.test, acme.example.com; to run it" in shown.replace("\r\n", "")


def test_on_a_terminal_a_short_name_may_be_ambiguous(fleet):
    code, shown = Screen(fleet.project.environment, "tenant_command", "acme", "check").end()
    assert code == 1
    assert "'acme' may be acme.example.com, acme.example.org: give the whole id; nothing was run" in shown


# --- workers ---


@pytest.fixture(scope="module")
def worker(fleet):
    with fleet.project.start("-m", "celery", "-A", "tests.app", "worker", *QUIET) as started:
        started.wait_for("ready.")
        yield started
        assert started.terminate() == 0


def test_workers_run_it(fleet, worker):
    text = (
        "import os, sys; from tests.app.models import Note; from django.db import connection; "
        "print(connection.alias, os.getppid()); print('x' * 200_000); sys.stderr.write('e\\n'); Note.objects.count()"
    )
    code, out, err = fleet.run(":all:", "--executor", "celery", "--", "shell", "-v0", "-c", text)
    assert code == 1
    first = [line for line in out if "_default" in line]
    names = ["acme.example.com", "acme.example.org", "globex.test"]
    assert sorted(first) == [f"{name} | {name}_default {worker.pid}" for name in names]
    assert sum(map(len, out)) < 3 * 70_000
    assert sum("characters are left out ..." in line for line in out) == 3
    assert {f"{name} | e" for name in names} <= {*err}
    assert any(line.startswith("globex.test: FAILED: OperationalError: no such table: app_note") for line in err)
    assert "not done for 1 of 3 (1 failed): globex.test" in err[-1]


def test_workers_run_a_tenant_command(fleet, worker):
    done = subprocess.run(
        [*MANAGE, "count_notes", "acme.example.org", "--executor", "celery", "--add", "w"],
        cwd=ROOT, env={**os.environ, **fleet.project.environment}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = ["1 notes", "w of acme.example.org", "counted at acme.example.org"]
    assert done.stdout.splitlines() == [f"acme.example.org | {line}" for line in lines]


def test_workers_run_what_their_own_settings_list(fleet, worker):
    arguments = ["acme.example.com", "--executor", "celery", "--", "showmigrations", "app"]
    code, _, err = fleet.run(*arguments, TESTS_COMMANDS="showmigrations")
    assert code == 1
    assert err[0].startswith("acme.example.com: FAILED: CommandError: workers do not run 'showmigrations'")


def test_workers_have_a_time_limit_and_active_tenants(fleet, worker):
    fleet.project.put("suspended.test", fleet.project.record("x.db"), state="S")
    arguments = ["acme.example.com", "suspended.test", "--executor", "celery", "--timeout", "3"]
    code, _, err = fleet.run(*arguments, "--", "shell", "-v0", "-c", FOREVER)
    assert code == 1
    told = sorted(line for line in err if ": FAILED" in line or ": TIMED" in line)
    assert told[0].startswith("acme.example.com: TIMED OUT: no worker has done it within 3 s (--timeout)")
    assert told[1].startswith("suspended.test: FAILED: it is suspended: workers run tasks of active tenants")


def test_celery_without_an_application_or_results(fleet):
    arguments = ["acme.example.com", "--executor", "celery", "--", "shell", "-c", "1"]
    code, _, err = fleet.run(*arguments, TESTS_RESULT_URL="disabled://")
    assert (code, err) == (
        1,
        ["CommandError: Celery keeps no results here, so no outcome would come back: set its result_backend"],
    )
