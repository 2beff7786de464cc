"""What a process keeps after thousands of changes: nothing."""

import json

import pytest

from tests.processes import Project
from tests.tenants import eventually


@pytest.fixture
def sessions(postgres_server):
    """A function that counts the sessions of these databases."""

    def count(databases):
        with postgres_server.connect("postgres") as connection:
            found = connection.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = ANY(%s)", [databases])
            return found.fetchone()[0]

    return count


@pytest.mark.timeout(400)  # it is work for half a minute, and others may have the machine
def test_ten_thousand_tenants_come_change_and_go(redis_server, tmp_path, pg_database, pg_environment, sessions):
    """100 ids, created, updated and deleted 100 times over; measured from the 20th time on."""
    project = Project(redis_server, tmp_path, TESTS_LOG="ERROR", **pg_environment)
    databases = [pg_database("churn"), pg_database("churn")]
    project.put("other.test", project.record(databases[0]))
    with project.start("-m", "tests.faults.churn", *databases) as process:
        process.wait_for('"round": 100', timeout=300)
        lines = [json.loads(line) for line in process.log.splitlines() if line.startswith('{"round"')]
        eventually(lambda: sessions(databases) == 0)
    warm, last = lines[1], lines[-1]
    assert (warm["round"], last["round"]) == (20, 100)
    print(lines)
    assert (last["threads"], last["files"]) == (warm["threads"], warm["files"])
    assert last["rss"] - warm["rss"] <= 5_000_000
