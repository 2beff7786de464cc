"""What deletes or gives up data asks on a terminal, and refuses where it can neither ask nor was told ``--yes``."""

import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from tenant_router.exceptions import Conflict
from tenant_router.reactive.shrinking import ACCEPTED
from tests.processes import MANAGE, ROOT


@pytest.fixture
def consenting(tenants, tmp_path):
    """Command name -> its arguments, and whether it has done what it asks about; two tenants are there."""
    for name in ("a.test", "b.test"):
        tenants.put(name)
    file = tmp_path / "one.json"
    section = {"a.test": {tenants.runtime.conf.service: tenants.record("a.test")}}
    file.write_text(json.dumps({"mapping_metadata": {}, "tenant_config": section}))
    store = tenants.runtime.store

    def lost_b():
        return "b.test" not in store.get_many(["b.test"])

    return {
        "delete": (["tenant", "delete", "b.test"], "b.test", lost_b),
        "flush": (["load_tenant_config", "-f", str(file), "--flush-all"], "yes", lost_b),
        "accept": (
            ["tenant_store", "accept", "--epoch", store.head().epoch],
            "yes",
            lambda: bool(store.claimed(ACCEPTED)),
        ),
    }


EACH = pytest.mark.parametrize("name", ["delete", "flush", "accept"])


class Terminal:
    """A real one: this process's standard input and error output from when something is typed until the test ends."""

    def __init__(self, monkeypatch):
        self._monkeypatch = monkeypatch
        self._master, slave = pty.openpty()
        self._input, self._output = os.fdopen(slave), os.fdopen(os.dup(slave), "w")

    def type(self, keys):
        self._monkeypatch.setattr(sys, "stdin", self._input)
        self._monkeypatch.setattr(sys, "stderr", self._output)
        os.write(self._master, keys)

    def wait_for(self, text):
        """Read what is shown until it has ``text``; a terminal gives it in pieces."""
        shown = b""
        while text.encode() not in shown:
            shown += os.read(self._master, 65536)

    def close(self):
        self._input.close()
        self._output.close()
        os.close(self._master)


@pytest.fixture
def terminal(monkeypatch):
    made = Terminal(monkeypatch)
    yield made
    made.close()


@EACH
def test_on_a_terminal_it_asks_and_does_what_was_agreed_to(consenting, terminal, name):
    arguments, answer, done = consenting[name]
    terminal.type(f"{answer}\n".encode())
    call_command(*arguments)
    terminal.wait_for(f"Type {answer!r} to go on: ")
    assert done()


@EACH
@pytest.mark.parametrize("keys", [b"\n", b"n\n", b"y\n", b"\x04"], ids=["nothing", "n", "y", "Ctrl-D"])
def test_any_other_answer_changes_nothing(consenting, terminal, name, keys):
    arguments, _, done = consenting[name]
    terminal.type(keys)
    with pytest.raises(CommandError, match=r"^nothing was (deleted|written|accepted)$"):
        call_command(*arguments)
    assert not done()


def _pipe():
    reader, writer = os.pipe()
    os.write(writer, b"yes\nb.test\n")
    os.close(writer)
    return os.fdopen(reader)


def _closed():
    with Path(os.devnull).open() as stream:
        return stream


INPUTS = {
    "a pipe that says yes": _pipe,
    "an empty one": Path(os.devnull).open,
    "closed before it began": lambda: None,
    "closed since": _closed,
    "no file at all": lambda: io.StringIO("yes\n"),
}


@EACH
@pytest.mark.parametrize("stdin", INPUTS.values(), ids=INPUTS)
def test_without_a_terminal_it_refuses(consenting, monkeypatch, name, stdin):
    arguments, _, done = consenting[name]
    stream = stdin()
    monkeypatch.setattr(sys, "stdin", stream)
    with pytest.raises(CommandError, match=r"give --yes, since there is no terminal .*\(nothing was ") as refused:
        call_command(*arguments)
    assert (refused.value.returncode, done()) == (2, False)
    assert "\n" not in str(refused.value)
    if stream is not None:
        stream.close()


@EACH
def test_a_question_that_nobody_would_see_is_not_asked(consenting, terminal, monkeypatch, name):
    arguments, answer, done = consenting[name]
    terminal.type(f"{answer}\n".encode())
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stderr", io.StringIO())
        patched.setattr(sys, "stdout", io.StringIO())
        with pytest.raises(CommandError, match="give --yes"):
            call_command(*arguments)
    assert not done()


@EACH
def test_with_yes_it_asks_nobody(consenting, monkeypatch, name):
    arguments, _, done = consenting[name]
    monkeypatch.setattr(sys, "stdin", None)
    call_command(*arguments, "--yes")
    assert done()


def test_nothing_to_delete_is_no_question(consenting, monkeypatch, tenants):
    monkeypatch.setattr(sys, "stdin", None)
    tenants.delete("b.test")
    call_command(*consenting["flush"][0])


def test_who_is_changed_while_it_asks_is_not_deleted(consenting, tenants, monkeypatch):
    def changed_meanwhile(*arguments, **options):
        tenants.put("b.test", tenants.record("other"))

    monkeypatch.setattr("tenant_router.management.commands.tenant.confirm", changed_meanwhile)
    with pytest.raises(Conflict, match="was changed by somebody else meanwhile: it is at revision 4, not 3"):
        call_command("tenant", "delete", "b.test")
    assert "b.test" in tenants.runtime.store.get_many(["b.test"])


# --- as processes: what the shell sees ---


def on_terminal(arguments, environment, keys):
    """Exit code and output of a command with a controlling terminal, on which ``keys`` are typed when it asks."""
    pid, master = pty.fork()
    if pid == 0:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell has its background jobs ignore it, and so their children
        os.execve(arguments[0], arguments, environment)
    shown = b""
    deadline = time.monotonic() + 60
    while b"to go on: " not in shown and time.monotonic() < deadline:
        shown += os.read(master, 4096)
    os.write(master, keys)
    try:
        while piece := os.read(master, 4096):
            shown += piece
    except OSError:  # Linux says so when the last process has closed its end
        pass
    _, status = os.waitpid(pid, 0)
    os.close(master)
    return os.waitstatus_to_exitcode(status), shown.decode()


def test_processes_with_a_terminal_a_pipe_and_no_input(served_project):
    store, environment = served_project.store, {**os.environ, **served_project.environment}
    arguments = [*MANAGE, "tenant", "delete", "a.test"]
    code, shown = on_terminal(arguments, environment, b"\x03")
    lines = re.sub(r"\x1b\[[0-9;]*m", "", shown).splitlines()
    assert code == 130
    assert lines[-1] == "CommandError: interrupted: nothing was deleted", shown
    for stdin in ("echo a.test |", "</dev/null", "<&-"):
        words = " ".join(arguments)
        script = f"{stdin} {words}" if stdin.endswith("|") else f"{words} {stdin}"
        done = subprocess.run(["sh", "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == 2, done
        assert [line for line in done.stderr.splitlines() if not line.startswith("INFO")] == [
            "CommandError: every process stops serving a.test: give --yes, since there is no terminal to ask on "
            "(nothing was deleted)"
        ]
    assert "a.test" in store.get_many(["a.test"])


@pytest.fixture
def served_project(redis_server, tmp_path):
    from tests.processes import Project

    project = Project(redis_server, tmp_path)
    project.put("a.test", project.record(tmp_path / "a.db"))
    return project
