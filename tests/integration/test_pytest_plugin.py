"""The pytest plugin: a project's own pytest-django suite has the same outcomes as without tenant_router."""

import subprocess
import sys

import pytest

from tests.suite_project import running


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The outcomes where tenant_router is not in the settings: the plugin is loaded and does nothing."""
    found = running.pytest("plain", tmp_path_factory.mktemp("plain"))
    assert len(found) > 15
    assert set(found.values()) == {"PASSED"}, found.output
    return found


@pytest.mark.parametrize("mode", ["template", "strict"])
def test_same_outcomes(plain, tmp_path, mode):
    routed = running.pytest(mode, tmp_path, others="b.test")
    assert plain.differing(routed) == running.EXPECTED_PYTEST[mode], routed.output


def test_xdist(plain, tmp_path):
    routed = running.pytest("tenant", tmp_path, "-n", "2", database="file", others="b.test")
    assert plain.differing(routed) == set(), routed.output


def test_tenants_of_marks_and_classes(tmp_path):
    found = running.pytest("template", tmp_path, folder="pytest_tenants")
    assert len(found) > 10
    assert set(found.values()) == {"PASSED"}, found.output


def test_databases_are_removed_after_a_first_failure(tmp_path):
    """pytest tears session fixtures down when the session finishes, which must not have lost the test tenant."""
    args = ("-x", "-k", "test_rolled_back or test_client")
    found = running.pytest("tenant", tmp_path, *args, folder="pytest_tenants", database="file", broken=1)
    assert "FAILED" in found.values(), found.output
    assert "Error when trying to teardown" not in found.output
    assert not list(tmp_path.glob("test_*sqlite3*"))


def test_without_django(tmp_path):
    (tmp_path / "test_one.py").write_text("def test_one(pytestconfig): assert pytestconfig")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:django", "-p", "no:cacheprovider", tmp_path]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert "1 passed" in done.stdout, done.stdout
