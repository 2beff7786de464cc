"""Starting and stopping: what the person at the terminal sees, and what is left on the machine."""

import signal
import socket
from pathlib import Path

import psutil
import pytest

from tests.demo.running import START_SECONDS, STOP_SECONDS, Demo, command_of, demo_command, eventually

pytestmark = pytest.mark.timeout(400)  # up to two starts


@pytest.fixture
def state(folder) -> Path:
    """A long path, with characters that a URL would need quoted."""
    deep = folder / "a checkout, 100% long" / ("and deep " * 8) / ("and deeper " * 8)
    deep.mkdir(parents=True)
    return deep / "state"


@pytest.fixture
def start(state):
    """Start demos in one folder; whatever a failing test leaves is stopped."""
    started: list[Demo] = []

    def starter() -> Demo:
        started.append(Demo(state))
        return started[-1]

    yield starter
    for demo in started:
        if demo.process.poll() is None:
            demo.stop()


def wait_gone(processes: list[psutil.Process]) -> None:
    """What was killed at the last may take a moment to be gone."""
    eventually(lambda: not any(_runs(process) for process in processes), STOP_SECONDS, f"{processes} are gone")


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:  # between the two questions
        return False


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def names(processes: list[psutil.Process]) -> set[str]:
    commands = [" ".join(command_of(process)) for process in processes]
    return {name for name in ("redis-server", "postgres", "gunicorn", "celery") if any(name in one for one in commands)}


def test_ctrl_c_stops_everything(start):
    demo = start().wait_until_ready()
    family, port, sockets = demo.family(), demo.port, Path(demo.note["sockets"])
    assert names(family) == {"redis-server", "postgres", "gunicorn", "celery"}
    assert sockets.stat().st_mode & 0o777 == 0o700
    assert demo.stop(signal.SIGINT) == 0
    wait_gone(family)
    assert is_free(port)
    assert not sockets.exists()
    assert demo.output.endswith("stopped; nothing is left running\n")


def test_the_next_start_tidies_up_after_a_killed_one_and_keeps_the_data(start):
    killed = start().wait_until_ready()
    assert killed.command("tenant", "tenant-9.test.com").returncode == 0
    leftovers = killed.family()
    killed.stop(signal.SIGKILL)
    demo = start().wait_until_ready()
    wait_gone(leftovers)
    assert demo.client("tenant-9.test.com").names("/api/hospitals/")
    family = demo.family()
    assert demo.stop(signal.SIGTERM) == 0
    wait_gone(family)


def test_a_signal_in_the_middle_of_the_start_stops_what_runs_by_then(start):
    demo = start()
    family = eventually(lambda: _with_postgresql(demo.family()), START_SECONDS, "postgresql is started")
    assert demo.stop() == 130
    wait_gone(family)
    assert "Traceback" not in demo.output


def _with_postgresql(family: list[psutil.Process]) -> list[psutil.Process]:
    return family if "postgres" in names(family) else []


def test_a_failing_start_shows_the_end_of_the_log_and_stops_the_rest(state, start):
    broken = state / "postgresql"
    broken.mkdir(parents=True)
    (broken / "PG_VERSION").write_text("18\n")
    demo = start()
    assert demo.process.wait(START_SECONDS) == 1
    assert "demo: postgresql ended" in demo.output
    assert "postgresql.conf" in demo.output, "the log is quoted"
    assert "Traceback" not in demo.output


def test_a_child_that_dies_ends_the_demo_with_the_reason(start):
    demo = start().wait_until_ready()
    family = demo.family()
    next(process for process in family if "redis-server" in "".join(command_of(process)[:1])).kill()
    assert demo.process.wait(STOP_SECONDS) == 1
    assert "demo: redis ended (exit code -9)" in demo.output
    wait_gone(family)


def test_a_second_start_is_refused_while_one_runs(demo):
    second = demo.command("up", "--port", "0")
    assert (second.returncode, second.stdout) == (1, "")
    assert f"a demo is already running here (port {demo.port})" in second.stderr
    assert "the demo is running" in demo.command("clean").stderr
    assert demo.client("tenant-1.test.com").names("/api/hospitals/")


def test_a_port_in_use_is_refused_before_anything_starts(state):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = demo_command(state, "up", "--port", str(port))
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"demo: port {port} cannot be used")
    assert len(refused.stderr.splitlines()) == 1
    assert not list((state / "logs").iterdir())


@pytest.mark.parametrize("tenant", ["", "Tenant-3.test.com", "a..b", "-a", "a_", "ü.test.com", "x" * 254])
def test_a_bad_tenant_id_is_refused_in_one_line(state, tenant):
    refused = demo_command(state, "tenant", "--", tenant)
    assert refused.returncode == 1
    assert "is no tenant id" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


def test_adding_a_tenant_needs_a_running_demo(state):
    refused = demo_command(state, "tenant", "tenant-3.test.com")
    assert refused.returncode == 1
    assert "the demo is not running" in refused.stderr
