"""A task's tenant is bound around all that Celery does for the task, also where no body runs: with real workers.

``TESTS_MATRIX=1`` runs every pool with results in every place; without it, each of them once.
"""

import json
import os
import shutil
import sqlite3
import uuid
from contextlib import closing

import pytest
from celery import Celery

from tests.integration.test_celery import POOLS, QUIET
from tests.processes import Project
from tests.tenants import eventually

TASKS = "tests.app.celery_tasks"
A, B = "a.test", "b.test"
MATRIX = [(pool, place) for pool in POOLS for place in ("tenants", "redis", "central")]
PART = [("prefork", "tenants"), ("threads", "central")]


@pytest.fixture(scope="module")
def blanks(redis_server, tmp_path_factory):
    """Migrated databases to copy, with the tables of results: a tenant's, and the central one for two ways."""
    directory = tmp_path_factory.mktemp("blanks")
    found = {}
    for place in ("tenants", "central"):
        central = directory / f"{place}-central.db"
        environment = {"DJANGO_SETTINGS_MODULE": "tests.settings_celery", "TESTS_CENTRAL": str(central)}
        project = Project(redis_server, directory, TESTS_RESULTS=place, **environment)
        project.put("blank.test", project.record(directory / f"{place}.db"))
        project.manage("migrate_all")
        found[place] = (directory / f"{place}.db", central)
    found["redis"] = found["tenants"]
    return found


class Worker:
    """A worker with two tenants, what it has written into their databases, and where its results are."""

    def __init__(self, project, place, files, client):
        self.project, self.place, self.files, self.client = project, place, files, client
        self.process = None

    def send(self, name, *args, tenant_id=A, **options):
        headers = {"tenant_id": tenant_id, **options.pop("headers", {})} if tenant_id else {}
        return self.client.send_task(f"{TASKS}.{name}", args=args, headers=headers, **options).id

    def notes(self, tenant_id):
        return {text for (text,) in self._rows(self.files[tenant_id], "SELECT text FROM app_note")}

    def wait_for(self, *notes, tenant_id=A):
        """Wait until all of these are written by who runs as a tenant, and see that no other tenant's has one."""
        try:
            eventually(lambda: set(notes) <= self.notes(tenant_id), 30)
        except AssertionError:
            found = {note for each in self.files for note in self.notes(each) if each in (A, B)}
            ids = {note.split()[-1] for note in notes}
            raise AssertionError(
                f"of {notes} {tenant_id} has {[n for n in found if n.split()[-1] in ids]}\n{self.process.log}"
            ) from None
        for other in {A, B} - {tenant_id}:
            assert not set(notes) & self.notes(other)

    def state(self, task_id, tenant_id=A):
        """The state of a task as it is stored where its tenant's results are."""
        found = self._result(task_id, tenant_id)
        return found and found[0]

    def _result(self, task_id, tenant_id):
        if self.place == "redis":
            result = self.client.AsyncResult(task_id)
            return result.state, result.result
        file = self.files[tenant_id if self.place == "tenants" else "central"]
        query = "SELECT status, result FROM django_celery_results_taskresult WHERE task_id = ?"
        rows = self._rows(file, query, task_id)
        return (rows[0][0], json.loads(rows[0][1])) if rows else None

    def result(self, task_id, tenant_id=A):
        """What a task has returned."""
        self.wait_for_state("SUCCESS", task_id, tenant_id)
        return self._result(task_id, tenant_id)[1]

    def wait_for_state(self, state, task_id, tenant_id=A):
        try:
            eventually(lambda: self.state(task_id, tenant_id) == state, 30)
        except AssertionError:
            raise AssertionError(f"{self._result(task_id, tenant_id)}\n{self.process.log}") from None

    def result_of_one(self, name, *args, **options):
        return self.result(self.send(name, *args, **options))

    @staticmethod
    def _rows(file, query, *values):
        with closing(sqlite3.connect(file, timeout=20)) as connection:
            return connection.execute(query, values).fetchall()

    def execute(self, tenant_id, statement):
        with closing(sqlite3.connect(self.files[tenant_id], timeout=20)) as connection, connection:
            connection.execute(statement)


@pytest.fixture(scope="module", params=MATRIX if os.environ.get("TESTS_MATRIX") else PART, ids="-".join)
def worker(request, redis_server, blanks, tmp_path_factory):
    pool, place = request.param
    directory = tmp_path_factory.mktemp("everywhere")
    tenant_blank, central_blank = blanks[place]
    files = {tenant_id: shutil.copy(tenant_blank, directory / f"{tenant_id}.db") for tenant_id in (A, B)}
    files["central"] = shutil.copy(central_blank, directory / "central.db")
    environment = {"DJANGO_SETTINGS_MODULE": "tests.settings_celery", "TESTS_CENTRAL": str(files["central"])}
    project = Project(redis_server, directory, TESTS_RESULTS=place, **environment)
    for tenant_id in (A, B):
        project.put(tenant_id, project.record(files[tenant_id]))
    backend = project.environment["TESTS_RESULT_URL"]
    with Celery("client", broker=project.broker, backend=backend, set_as_current=False) as client:
        client.conf.task_default_queue = project.service
        found = Worker(project, place, files, client)
        found.pool = pool
        with project.start("-m", "celery", "-A", "tests.app", "worker", *POOLS[pool], *QUIET) as process:
            process.wait_for("ready.")
            found.process = process
            yield found
            assert process.terminate() == 0
            assert "Unrecoverable" not in process.log
        # results that are collected later must not look for a Redis that is gone
        client.backend.result_consumer.cancel_for = lambda task_id: None


def only_prefork(worker):
    if worker.pool != "prefork":
        pytest.skip("only a prefork worker has time limits and children to lose")


def both(*events):
    """What the receivers write that were connected before anything was ready, and those of a task's module."""
    return [f"{when} {event}" for when in ("early", "late") for event in events]


def test_receivers_around_a_body(worker):
    done, failed, again = worker.send("tenant"), worker.send("raise_error"), worker.send("try_twice")
    worker.wait_for(*both(*(f"{e} {done}" for e in ("task_received", "task_prerun", "task_postrun", "task_success"))))
    worker.wait_for(*both(*(f"{event} {failed}" for event in ("task_prerun", "task_postrun", "task_failure"))))
    worker.wait_for(f"accepted {failed}", f"on_failure {failed}", f"after_return {failed}")
    worker.wait_for(*both(f"task_retry {again}", f"task_success {again}"))
    worker.wait_for_state("SUCCESS", done)
    worker.wait_for_state("FAILURE", failed)
    worker.wait_for_state("SUCCESS", again)


def test_an_expired_task(worker):
    for options in ({"expires": 0.001, "countdown": 0.1}, {"expires": 0.001}):
        expired = worker.send("tenant", **options)
        worker.wait_for(*both(f"task_revoked {expired}"))
        worker.wait_for_state("REVOKED", expired)
    assert worker.result_of_one("tenant") == A


def test_a_revoked_task(worker):
    revoked = worker.send("tenant", countdown=3)
    worker.wait_for(*both(f"task_received {revoked}"))
    worker.client.control.revoke(revoked)
    worker.wait_for(*both(f"task_revoked {revoked}"))
    worker.wait_for_state("REVOKED", revoked)


def test_a_terminated_task(worker):
    only_prefork(worker)
    running = worker.send("sleep", 30)
    worker.wait_for(f"sleeps {running}")
    worker.client.control.revoke(running, terminate=True, signal="SIGKILL")
    worker.wait_for(*both(f"task_revoked {running}"))
    worker.wait_for_state("REVOKED", running)


def errbacks(worker):
    return [worker.client.signature(f"{TASKS}.{name}") for name in ("new_errback", "old_errback")]


@pytest.mark.parametrize("name", ["sleep", "lose_the_worker", "sleep_softly"])
def test_what_happens_to_a_child(worker, name):
    only_prefork(worker)
    limit = {"time_limit": 0.3} if name == "sleep" else {}
    ended = worker.send(name, *[60][: name == "sleep"], link_error=errbacks(worker), **limit)
    worker.wait_for(*both(f"task_failure {ended}"), f"new_errback {ended}", f"old_errback {ended}")
    if name != "lose_the_worker":
        worker.wait_for(f"timeout {ended}")
        worker.wait_for(f"on_failure {ended}", f"after_return {ended}")
    worker.wait_for_state("FAILURE", ended)


def test_error_callbacks_of_a_body(worker):
    failed = worker.send("raise_error", link_error=errbacks(worker))
    worker.wait_for(f"new_errback {failed}", f"old_errback {failed}")


@pytest.mark.parametrize("tenant_id", ["nobody.test", "../etc"])
def test_the_result_of_an_unknown_tenant(worker, tenant_id):
    lost = worker.send("tracked", tenant_id=tenant_id, link_error=errbacks(worker))
    if worker.place == "tenants":
        worker.process.wait_for(f"the result FAILURE of task {lost} is dropped")
    else:
        worker.wait_for_state("FAILURE", lost)
    expired = worker.send("tracked", tenant_id=tenant_id, expires=0.001, countdown=0.1)
    worker.process.wait_for(f"Discarding revoked task: {TASKS}.tracked[{expired}]")
    assert worker.result_of_one("tracked")["tenant"] == A


def test_a_task_that_nobody_knows(worker):
    unknown = worker.send("of_another_release")
    worker.wait_for(*both(f"task_unknown {unknown}"))
    worker.wait_for_state("FAILURE", unknown)


def test_a_message_that_is_no_task(worker):
    task_id = uuid.uuid4().hex
    with worker.client.connection_for_write() as connection:
        producer = worker.client.amqp.Producer(connection)
        headers = {"id": task_id, "task": f"{TASKS}.tenant", "eta": "tomorrow", "tenant_id": A}
        producer.publish([[], {}, {}], routing_key=worker.project.service, headers=headers, serializer="json")
    worker.wait_for(*both(f"task_rejected {task_id}"))


def made(worker, kind, tenant_id=A):
    return worker.result(worker.send("make", kind, tenant_id=tenant_id), tenant_id)


def test_a_chord(worker):
    assert worker.result(made(worker, "chord")[0]) == [A, A, A]
    assert worker.result(made(worker, "chord of b")[0]) == [B, B, A]
    assert worker.result(made(worker, "chord for b")[0], B) == [A, A, B]
    assert worker.result(made(worker, "chain that ends in a chord")[0]) == [A, A, A]


def test_a_chord_of_two_tenants_is_refused(worker):
    refused = worker.send("make", "chord of two")
    worker.wait_for_state("FAILURE", refused)
    worker.process.wait_for("the headers of a chord belong to different tenants (a.test, b.test)")


@pytest.mark.parametrize("kind", ["chord that fails", "chord of b that fails"])
def test_a_chord_that_fails(worker, kind):
    body = made(worker, kind)[0]
    worker.wait_for_state("FAILURE", body)
    worker.wait_for(f"old_errback {body}")


def test_a_chord_that_loses_a_worker(worker):
    only_prefork(worker)
    body = made(worker, "chord that loses a worker")[0]
    worker.wait_for_state("FAILURE", body)
    worker.wait_for(f"new_errback {body}")


def test_a_chain(worker):
    last, middle, first = made(worker, "chain")
    assert worker.result(first) == [A]
    assert worker.result(middle, B) == [A, B]
    assert worker.result(last) == [A, B, A]


def test_a_chain_that_fails(worker):
    last, middle, first = made(worker, "chain that fails")
    worker.wait_for_state("FAILURE", first)
    worker.wait_for_state("FAILURE", last)
    worker.wait_for_state("FAILURE", middle, B)


def test_callbacks_run_as_who_made_them(worker):
    made(worker, "callback")
    worker.wait_for(f"callback of {B}")
    (failed,) = made(worker, "errbacks")
    worker.wait_for(*both(f"task_failure {failed}"), tenant_id=B)
    worker.wait_for(f"old_errback {failed}", f"new_errback {failed}")


def test_maps_and_groups(worker):
    assert worker.result(made(worker, "map")[0]) == [A, A]
    assert worker.result(made(worker, "starmap", B)[0], B) == [B, B]
    assert [worker.result(one) for one in made(worker, "chunks")[1:]] == [[A, A], [A]]
    _, of_a, of_b = made(worker, "group")
    assert (worker.result(of_a), worker.result(of_b, B)) == (A, B)


def test_polling(worker):
    done = worker.send("tenant")
    worker.wait_for_state("SUCCESS", done)
    seen = {
        tenant_id: worker.result(worker.send("state_of", done, tenant_id=tenant_id), tenant_id) for tenant_id in (A, B)
    }
    assert seen == {A: "SUCCESS", B: "PENDING" if worker.place == "tenants" else "SUCCESS"}


def test_nothing_has_run_without_its_tenant(worker):
    assert "TenantContextMissing" not in worker.process.log


def test_old_results_are_cleaned_up(worker):
    if worker.place == "redis":
        pytest.skip("Redis forgets by itself")
    holders = (A, B) if worker.place == "tenants" else ("central",)
    for holder in holders:
        worker.execute(holder, "DELETE FROM django_celery_results_taskresult")
        worker.execute(
            holder,
            "INSERT INTO django_celery_results_taskresult (task_id, status, content_type, content_encoding, date_done,"
            " date_created) VALUES ('old', 'SUCCESS', '', '', '2001-01-01', '2001-01-01')",
        )
    worker.client.send_task("celery.backend_cleanup")
    query = "SELECT task_id FROM django_celery_results_taskresult WHERE task_id = 'old'"
    eventually(lambda: not any(worker._rows(worker.files[holder], query) for holder in holders), 30)
