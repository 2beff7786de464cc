"""The matrix of versions says what setup.cfg says, and a Python that is not there is never passed over in silence."""

import configparser
import os
import subprocess
import sys

import pytest

from tests import matrix

SETUP = configparser.ConfigParser()
SETUP.read(matrix.ROOT / "setup.cfg")
ABSENT = "py310-django42" if sys.version_info >= (3, 11) else "py313-django60"


def classified(topic):
    lines = SETUP["metadata"]["classifiers"].splitlines()
    return [line.removeprefix(topic) for line in lines if line.startswith(topic) and "." in line]


def started(*arguments, **environment):
    """The script on a machine whose only Python is the running one."""
    command = [sys.executable, matrix.__file__, *arguments]
    return subprocess.run(command, env={"PATH": os.devnull, **environment}, capture_output=True, text=True)


def test_the_pythons_are_those_that_are_promised():
    assert list(matrix.PYTHONS) == classified("Programming Language :: Python :: ")
    assert SETUP["options"]["python_requires"] == f">={matrix.PYTHONS[0]}"


def test_the_oldest_and_the_newest_django_that_are_promised_are_tried():
    promised = classified("Framework :: Django :: ")
    assert set(matrix.DJANGOS) <= set(promised)
    assert (min(matrix.DJANGOS), max(matrix.DJANGOS)) == (promised[0], promised[-1])
    newest, minor = map(int, promised[-1].split("."))
    assert f"Django>={promised[0]},<{newest}.{minor + 1}" in SETUP["options"]["install_requires"]


@pytest.mark.parametrize(("required", "outcome", "code"), [("0", "skipped", 0), ("1", "failed", 1)])
def test_a_missing_python_is_named_and_fails_where_all_must_be_there(required, outcome, code):
    done = started(ABSENT, TENANT_ROUTER_REQUIRE_SERVICES=required)
    python = matrix.PAIRS[ABSENT].python
    assert f"{outcome:9}no Python {python} on PATH or in pyenv" in done.stdout
    assert done.returncode == code


def test_an_unknown_pair_is_refused_and_the_known_ones_are_listed():
    done = started("py311-django60")
    assert done.returncode == 2
    assert "no such pair: py311-django60; there are py310-django42" in done.stderr
