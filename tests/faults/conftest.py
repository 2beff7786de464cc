"""Fixtures: a Redis of a test's own, and a runtime that follows it."""

import pytest

from tests.processes import Project
from tests.servers import RedisServer, short_directory


@pytest.fixture
def own_redis():
    with short_directory() as directory:
        server = RedisServer(directory, "--appendonly", "yes", "--appendfsync", "always")
        server.start()
        yield server
        server.stop()


@pytest.fixture
def project(own_redis, tmp_path):
    """The tests' project on a Redis of its own, with the tenant a.test."""
    project = Project(own_redis, tmp_path)
    project.put("a.test", project.record("a.db"))
    return project


@pytest.fixture
def runtime_on(runtime_on):
    """The one of all tests; a start bears a server that stands still for a while."""
    return lambda project, **options: runtime_on(project, **{"BOOT_TIMEOUT": 20, **options})
