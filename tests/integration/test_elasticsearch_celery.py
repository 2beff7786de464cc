"""Documents in Elasticsearch through Celery: tasks on real workers, for two tenants, while one of them moves."""

import os
import uuid

import pytest
from celery import Celery
from elasticsearch import Elasticsearch

from tests.processes import Project
from tests.services import require

POOLS = {"prefork": ["-P", "prefork", "-c", "2"], "threads": ["-P", "threads", "-c", "4"]}
QUIET = ["--without-gossip", "--without-mingle", "--without-heartbeat", "-l", "INFO"]


@pytest.fixture
def address():
    found = os.environ.get("ELASTICSEARCH_URL")
    require(found, "ELASTICSEARCH_URL is not set")
    return found


@pytest.fixture
def project(redis_server, tmp_path, address):
    environment = {"DJANGO_SETTINGS_MODULE": "tests.settings_elasticsearch", "ELASTICSEARCH_URL": address}
    return Project(redis_server, tmp_path, **environment)


@pytest.fixture
def client(project):
    backend = project.environment["TESTS_RESULT_URL"]
    made = Celery("client", broker=project.broker, backend=backend, set_as_current=False)
    made.conf.task_default_queue = project.service
    yield made
    made.backend.result_consumer.cancel_for = lambda task_id: None
    made.close()


@pytest.fixture
def prefix(address):
    """What all index names of a test begin with; they are removed after it."""
    found = f"t{uuid.uuid4().hex[:8]}-"
    yield found
    with Elasticsearch(address, request_timeout=60) as plain:
        names = plain.indices.get(index=f"{found}*", expand_wildcards="all")
        for name in names:
            plain.indices.delete(index=name)


@pytest.mark.parametrize("pool", POOLS)
def test_tasks_find_their_tenants_documents(project, client, prefix, sqlite_file, pool):
    def put(tenant_id, name):
        record = project.record(sqlite_file(name))
        record["orm_config"]["es_orm"] = {"default": {"INDEX_PREFIX": f"{prefix}{name}-"}}
        project.put(tenant_id, record)

    def run(tenant_id):
        task = client.signature("tests.elasticsearch_tasks.index_and_list", args=[tenant_id])
        return task.apply_async(headers={"tenant_id": tenant_id})

    put("a.test", "a")
    put("b.test", "b")
    with project.start("-m", "celery", "-A", "tests.app", "worker", *POOLS[pool], *QUIET) as worker:
        worker.wait_for("ready.")
        results = []
        for turn in range(3):
            put("a.test", f"a{turn}")
            results += [(tenant_id, run(tenant_id)) for tenant_id in ["a.test", "b.test"] * 10]
        for tenant_id, result in results:
            assert result.get(timeout=30) == [tenant_id]
        assert worker.terminate() == 0
