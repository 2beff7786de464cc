"""A command line in a process of its own: what it prints, how it ends, and what it leaves behind."""

import io
import os
import sys
import threading
import time
from types import SimpleNamespace

import psutil
import pytest

from tenant_router.fleet import processes
from tenant_router.fleet.outcomes import JobFailed
from tenant_router.fleet.processes import Processes
from tests.tenants import eventually

CHILD = (
    "import subprocess, sys, time; child = subprocess.Popen(['sleep', '300'])\n"
    "sys.stdout.write(f'{child.pid}\\n'); sys.stdout.flush()\n"
)


def run(text, runner=None):
    """What a piece of Python prints, and how it fails."""
    out, err = io.StringIO(), io.StringIO()
    runner, failure = runner or Processes(os.environ, None), None
    try:
        runner.run([sys.executable, "-c", text], out, err)
    except JobFailed as error:
        failure = error
    return out.getvalue(), err.getvalue(), failure


def gone(pid):
    eventually(lambda: not psutil.pid_exists(int(pid)))


def test_what_is_printed_comes_through():
    text = "import sys; print('\u00fc' * 100_000); sys.stderr.write('e' * 300_000); sys.stdout.buffer.write(b'\\xff')"
    assert run(text) == ("\u00fc" * 100_000 + "\n\ufffd", "e" * 300_000, None)


def test_nothing_can_be_read():
    assert run("import sys; print(repr(sys.stdin.read()))")[0] == "''\n"


@pytest.mark.parametrize(
    ("text", "code", "line"),
    [
        ("import sys; sys.stderr.write('first\\nlast\\n\\n'); sys.exit(3)", 3, "last"),
        (
            "import sys; sys.stderr.write('first\\nla'); sys.stderr.flush(); sys.stderr.write('st'); sys.exit(3)",
            3,
            "last",
        ),
        ("import sys; sys.exit(4)", 4, "it ended with 4"),
        ("import os; os.kill(os.getpid(), 9)", 137, "it was killed by SIGKILL"),
    ],
)
def test_how_it_fails(text, code, line):
    failure = run(text)[2]
    assert (failure.exit_code, failure.line, failure.status) == (code, line, "failed")


def test_a_command_that_is_not_there():
    with pytest.raises(FileNotFoundError):
        Processes(os.environ, None).run(["/no/such/program"], io.StringIO(), io.StringIO())


def test_who_ends_leaves_nobody_behind():
    """A child that keeps the pipes open holds nobody up, and is ended with its group."""
    out, _, failure = run(CHILD)
    assert failure is None
    gone(out)


@pytest.fixture
def out_of_time(monkeypatch):
    """A stream: what is written to it lets all the time pass that a process has."""
    passed = [0.0]

    class Out(io.StringIO):
        def write(self, text):
            passed[0] = 1000.0
            return super().write(text)

    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + passed[0], sleep=time.sleep)
    monkeypatch.setattr(processes, "time", clock)
    return Out()


def test_a_time_limit_ends_the_whole_group(out_of_time, monkeypatch):
    monkeypatch.setattr(processes, "PATIENCE", 0.2)
    text = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + CHILD + "time.sleep(300)"
    with pytest.raises(JobFailed) as failure:
        Processes(os.environ, 900).run([sys.executable, "-c", text], out_of_time, io.StringIO())
    assert (failure.value.status, failure.value.exit_code) == ("timed out", None)
    assert failure.value.line == "it was ended after 900 s (--timeout)"
    gone(out_of_time.getvalue())


def test_a_process_may_tidy_up_when_its_time_is_over(out_of_time):
    text = (
        "import signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(print('tidy')))\n"
        "sys.stdout.write('ready\\n'); sys.stdout.flush(); time.sleep(300)"
    )
    with pytest.raises(JobFailed, match="ended after"):
        Processes(os.environ, 900).run([sys.executable, "-c", text], out_of_time, io.StringIO())
    assert out_of_time.getvalue() == "ready\ntidy\n"


def test_all_are_ended_at_once_and_none_begins_any_more():
    runner, found, out = Processes(os.environ, None), [], io.StringIO()
    arguments = [sys.executable, "-c", CHILD + "time.sleep(300)"]

    def work():
        try:
            runner.run(arguments, out, io.StringIO())
        except JobFailed as error:
            found.append(error.line)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    eventually(lambda: out.getvalue().count("\n") == 2)
    runner.kill()
    for thread in threads:
        thread.join(60)
    assert found == ["it was killed by SIGKILL"] * 2
    for pid in out.getvalue().split():
        gone(pid)
    assert run("print(1)", runner=runner)[2].line == "it was stopped before it began"


def test_ctrl_c_does_not_reach_it():
    """It has a process group of its own."""
    assert run("import os; print(os.getpgid(0) == os.getpid())")[0] == "True\n"
