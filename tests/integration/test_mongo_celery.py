"""Documents through Celery: tasks on real workers, for two tenants at once, while one of them moves."""

import uuid

import pymongo
import pytest
from celery import Celery

from tests.fixtures_mongo import require_orm
from tests.processes import Project

POOLS = {"prefork": ["-P", "prefork", "-c", "2"], "threads": ["-P", "threads", "-c", "4"]}
QUIET = ["--without-gossip", "--without-mingle", "--without-heartbeat", "-l", "INFO"]


class Site:
    """A project with two tenants and a client that publishes to its worker."""

    def __init__(self, orm_id, project, client, sqlite_file):
        self.orm_id, self.project, self.client, self._file = orm_id, project, client, sqlite_file
        self.prefix = f"t{uuid.uuid4().hex[:8]}"

    def put(self, tenant_id, database):
        record = self.project.record(self._file(database))
        record["orm_config"][self.orm_id] = {"default": {"NAME": f"{self.prefix}_{database}"}}
        return self.project.put(tenant_id, record)

    def run(self, tenant_id):
        signature = self.client.signature("tests.mongo_tasks.add_and_list", args=[tenant_id])
        return signature.apply_async(headers={"tenant_id": tenant_id})


@pytest.fixture(params=["pymodm_orm", "mongoengine_orm"])
def site(request, redis_server, sqlite_file, tmp_path, mongo_url):
    require_orm(request.param)
    environment = {
        "DJANGO_SETTINGS_MODULE": "tests.settings_mongo",
        "MONGO_URL": mongo_url,
        "TESTS_MONGO_ORM": request.param,
    }
    project = Project(redis_server, tmp_path, **environment)
    backend = project.environment["TESTS_RESULT_URL"]
    client = Celery("client", broker=project.broker, backend=backend, set_as_current=False)
    client.conf.task_default_queue = project.service
    made = Site(request.param, project, client, sqlite_file)
    yield made
    client.backend.result_consumer.cancel_for = lambda task_id: None
    client.close()
    with pymongo.MongoClient(mongo_url) as plain:
        for name in plain.list_database_names():
            if name.startswith(f"{made.prefix}_"):
                plain.drop_database(name)


@pytest.mark.parametrize("pool", POOLS)
def test_tasks_find_their_tenants_documents(site, pool):
    site.put("a.test", "a")
    site.put("b.test", "b")
    with site.project.start("-m", "celery", "-A", "tests.app", "worker", *POOLS[pool], *QUIET) as worker:
        worker.wait_for("ready.")
        results = []
        for turn in range(3):
            site.put("a.test", f"a{turn}")
            results += [(tenant_id, site.run(tenant_id)) for tenant_id in ["a.test", "b.test"] * 20]
        for tenant_id, result in results:
            assert result.get(timeout=30) == [tenant_id]
        assert worker.terminate() == 0
