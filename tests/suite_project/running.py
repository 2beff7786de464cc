"""Runs the project's suites in processes of their own and reads each test's outcome."""

import os
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TIMEOUT = 300  # seconds

_LINE = re.compile(
    r"^(\w+) \(([\w.]+)\)(?: \[.*\]| \(.*\))? \.\.\. (ok|skipped|FAIL|ERROR|expected failure)", re.MULTILINE
)
_FAULT = re.compile(r"^(ERROR|FAIL): (\w+) \(([\w.]+)\)", re.MULTILINE)
_PYTEST = re.compile(r"^(?:\[gw\d+\] .*)?\s*(PASSED|FAILED|ERROR|SKIPPED)\s+(\S+)(?: - .*)?$", re.MULTILINE)

LITERAL = {"shop.tests.test_cases.LiteralAlias.test_default"}  # asserts the alias "default"
UNBOUND = {  # what fails in production, too: threads that do not carry the tenant, a project without our middleware
    "shop.tests.test_connections.Overridden.test_no_middleware",
    "shop.tests.test_connections.Threads.test_thread_reads",
    "shop.tests.test_connections.Threads.test_thread_writes",
}
EXPECTED = {"template": set(), "tenant": LITERAL, "strict": UNBOUND}
EXPECTED_PYTEST = {"template": set(), "tenant": set(), "strict": set()}


class Failed(AssertionError):
    """A suite ended otherwise than by its tests."""


def environment(mode, scratch, **extra):
    """The environment of a run: ``SUITE_<EXTRA>`` for each of ``extra``."""
    scratch.mkdir(parents=True, exist_ok=True)
    chosen = {f"SUITE_{name.upper()}": str(value) for name, value in extra.items()}
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("DJANGO_", "PYTEST_", "TESTS_"))}
    paths = {"PYTHONPATH": os.pathsep.join(map(str, (ROOT, HERE, scratch))), "DJANGO_SETTINGS_MODULE": "suite.settings"}
    return {**clean, **paths, "SUITE_MODE": mode, "SUITE_SCRATCH": str(scratch), **chosen}


def django(mode, scratch, *args, labels=("shop.tests",), **extra):
    """Run ``manage.py test``; each test's outcome. ``output`` of the result is what was printed."""
    command = [sys.executable, "-W", "ignore", HERE / "manage.py", "test", *labels, "--noinput", "-v", "2", *args]
    return _run(command, environment(mode, scratch, **extra), scratch, _django_outcomes)


def pytest(mode, scratch, *args, folder="pytest_style", **extra):
    """Run the pytest-style suite; each test's outcome."""
    own = ["-c", HERE / "pytest.ini", "--rootdir", HERE, "-p", "no:randomly", "-p", "no:cacheprovider", "-rA", "-v"]
    command = [sys.executable, "-m", "pytest", *own, *args, HERE / folder]
    return _run(command, environment(mode, scratch, **extra), scratch, _pytest_outcomes)


class Outcomes(dict):
    """By test; ``output`` is what the run printed."""

    output = ""

    def differing(self, other):
        """The tests that ended otherwise in ``other``."""
        return {test for test in {*self, *other} if self.get(test) != other.get(test)}


def _run(command, env, cwd, read):
    done = subprocess.run(
        command,
        env=env,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    found = Outcomes(read(done.stdout + done.stderr))
    found.output = done.stdout + done.stderr
    if not found or done.returncode not in (0, 1):
        raise Failed(f"exit code {done.returncode}\n{found.output[-6000:]}")
    return found


def _django_outcomes(output):
    found = {f"{_path(path, name)}": outcome for name, path, outcome in _LINE.findall(output)}
    return {**found, **{_path(path, name): kind for kind, name, path in _FAULT.findall(output)}}


def _path(path, name):
    return path if path.endswith(f".{name}") else f"{path}.{name}"


def _pytest_outcomes(output):
    return {test.rpartition("/")[2]: outcome for outcome, test in _PYTEST.findall(output)}
