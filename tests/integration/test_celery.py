"""Tasks on real workers over a real broker, in both kinds of pools."""

import sqlite3
import uuid
from contextlib import closing, contextmanager, suppress

import psutil
import pytest
from celery import Celery, chain, chord, group
from celery.exceptions import TimeoutError as ResultTimeout

from tenant_router.context_decorators import tenant_context_bind
from tenant_router.exceptions import TenantContextMissing, TenantDeleted, TenantMismatch, TenantNotFound
from tests.processes import Project
from tests.tenants import eventually

TASKS = "tests.app.worker_tasks"
QUIET = ["--without-gossip", "--without-mingle", "--without-heartbeat", "-l", "INFO"]
POOLS = {"prefork": ["-P", "prefork", "-c", "2"], "threads": ["-P", "threads", "-c", "2"]}


class Pair:
    """A project with two tenants, a worker, and a client that publishes to it."""

    def __init__(self, project, sqlite_file, client):
        self.project, self._file, self._client = project, sqlite_file, client
        self.files, self.worker = {}, None
        self.create("a.test")
        self.create("b.test")

    def create(self, tenant_id):
        """A new tenant, or another database for one; returns the revision."""
        self.files[tenant_id] = self._file(tenant_id)
        return self.project.put(tenant_id, self.project.record(self.files[tenant_id]))

    def task(self, name, *args, **options):
        return self._client.signature(f"{TASKS}.{name}", args=args, options=options)

    def run(self, name, *args, **options):
        return self.task(name, *args, **options).apply_async()

    def database(self, tenant_id):
        return str(self.files[tenant_id]).rpartition("/")[2]

    def followers(self):
        """The processes that run tasks, each of which follows the store by itself."""
        return self.worker.children() or {self.worker.pid}

    def arrived(self, tenant_id, revision):
        """Wait until every process that runs tasks has the tenant at this revision."""
        self.worker.wait_applied(self.followers(), tenant_id, revision)

    def has_opened(self, database):
        """Whether a task has a database open."""
        for process in self.worker.tree():
            with suppress(psutil.Error):
                if any(file.path.endswith(database) for file in process.open_files()):
                    return True
        return False

    @contextmanager
    def locked(self, tenant_id):
        """Have the tasks that read a tenant's database wait meanwhile."""
        with closing(sqlite3.connect(self.files[tenant_id], isolation_level=None)) as connection:
            connection.execute("BEGIN EXCLUSIVE")
            yield
            connection.execute("ROLLBACK")

    def notes(self, tenant_id):
        with closing(sqlite3.connect(self.files[tenant_id], timeout=20)) as connection:
            return {row[0] for row in connection.execute("SELECT text FROM app_note")}


@pytest.fixture(scope="module", params=POOLS)
def running(request, redis_server, sqlite_file, tmp_path_factory):
    project = Project(redis_server, tmp_path_factory.mktemp("celery"))
    backend = project.environment["TESTS_RESULT_URL"]
    client = Celery("client", broker=project.broker, backend=backend, set_as_current=False)
    client.conf.task_default_queue = project.service
    pair = Pair(project, sqlite_file, client)
    with project.start("-m", "celery", "-A", "tests.app", "worker", *POOLS[request.param], *QUIET) as worker:
        worker.wait_for("ready.")
        pair.worker, pair.pool = worker, request.param
        yield pair
        assert worker.terminate() == 0
    # results that pytest still holds (in the traceback of a failure) must not look for a Redis that is gone
    client.backend.result_consumer.cancel_for = lambda task_id: None
    client.close()


@pytest.fixture
def pair(running, runtime_on):
    """With this process a publisher of the same project."""
    runtime_on(running.project)
    return running


def text():
    return uuid.uuid4().hex


def failure(result):
    """The class of the error with which a task failed."""
    with pytest.raises(Exception) as info:
        result.get(timeout=20)
    assert not isinstance(info.value, ResultTimeout)
    return info.type


def assert_nothing_is_bound(pair):
    """Ask every process or thread of the pool what is bound when no tenant is named."""
    found = [pair.run("bound_tenants") for _ in range(6)]
    assert [result.get(timeout=20) for result in found] == [[]] * 6


def test_a_task_runs_on_the_database_of_the_tenant_that_sent_it(pair):
    with tenant_context_bind("a.test"):
        a = pair.run("where")
    with tenant_context_bind("b.test"):
        b = pair.run("where", countdown=0.2)
    for result, tenant in ((a, "a.test"), (b, "b.test")):
        found = result.get(timeout=20)
        assert (found["tenant"], found["database"], found["depth"]) == (tenant, pair.database(tenant), 1)
    assert_nothing_is_bound(pair)


def test_a_client_that_is_not_django_names_the_tenant_in_a_header(running):
    found = running.run("where", headers={"tenant_id": "b.test"}).get(timeout=20)
    assert found["database"] == running.database("b.test")


def test_a_retry_keeps_the_tenant(pair):
    note = text()
    with tenant_context_bind("a.test"):
        result = pair.run("write_at_second_try", note)
    assert result.get(timeout=20)["retries"] == 1
    assert note in pair.notes("a.test")
    assert note not in pair.notes("b.test")


def test_chain_group_and_chord_keep_the_tenant(pair):
    where = pair.task("where")
    with tenant_context_bind("a.test"):
        results = [chain(where, where, where)(), group(where, where, where)()]
        results.append(chord([where, where, where])(where))
        results.append(chain(group(where, where), where)())
    with tenant_context_bind("b.test"):
        other = chord([where, where])(where)
    found = [item for result in results for item in flat(result.get(timeout=20))]
    assert {item["tenant"] for item in found} == {"a.test"}
    assert len(found) == 1 + 3 + 1 + 1
    assert other.get(timeout=20)["database"] == pair.database("b.test")


def test_what_names_a_tenant_of_its_own_within_a_group_at_the_end_of_a_chain_keeps_it(pair):
    notes, b = [text() for _ in range(4)], {"headers": {"tenant_id": "b.test"}}
    write = [pair.task("write", note).set(immutable=True) for note in notes]
    with tenant_context_bind("a.test"):
        chain(write[0].set(**b), write[1], group(write[2], write[3].set(**b))).apply_async()
    eventually(lambda: set(notes[1:3]) <= pair.notes("a.test") and {notes[0], notes[3]} <= pair.notes("b.test"), 20)


def test_a_chord_of_two_tenants_fails_visibly_where_it_is_a_callback(pair):
    note, headers = text(), [pair.task("where"), pair.task("where").set(headers={"tenant_id": "b.test"})]
    with tenant_context_bind("a.test"):
        result = pair.task("where").apply_async(link=chord(headers, pair.task("write", note)))
    assert failure(result) is TenantMismatch
    assert not {note} & (pair.notes("a.test") | pair.notes("b.test"))


def flat(found):
    return found if isinstance(found, list) else [found]


def test_a_task_that_sends_a_task_hands_its_tenant_on(pair):
    notes = [text() for _ in range(6)]
    for index, note in enumerate(notes):
        with tenant_context_bind("ab"[index % 2] + ".test"):
            pair.run("hand_on", note)
    eventually(lambda: set(notes[::2]) <= pair.notes("a.test") and set(notes[1::2]) <= pair.notes("b.test"), 20)
    assert not set(notes[::2]) & pair.notes("b.test")


def test_a_task_sent_when_a_transaction_commits_keeps_the_tenant(pair):
    note = text()
    with tenant_context_bind("b.test"):
        pair.run("hand_on_when_committed", note)
    eventually(lambda: {f"{note} first", f"{note} then"} <= pair.notes("b.test"), 20)
    assert not any(found.startswith(note) for found in pair.notes("a.test"))


def test_a_task_without_tenant_runs_unbound_and_cannot_use_the_orm(running):
    running.run("where", headers={"tenant_id": "a.test"}).get(timeout=20)
    assert running.run("bound_tenants").get(timeout=20) == []
    assert failure(running.run("write", text())) is TenantContextMissing


def test_no_tenant_stays_bound_after_a_task_that_raised(pair):
    with tenant_context_bind("a.test"):
        results = [pair.run("fail") for _ in range(4)]
    assert {failure(result) for result in results} == {ValueError}
    assert_nothing_is_bound(pair)


def test_a_transaction_that_a_task_leaves_open_is_rolled_back(pair):
    """The next task of any tenant on this worker starts clean."""
    with tenant_context_bind("a.test"):
        pair.run("leave_a_transaction_open").get(timeout=20)
        notes = [text() for _ in range(4)]
        for result in [pair.run("write", note) for note in notes]:
            result.get(timeout=20)
    assert set(notes) <= pair.notes("a.test")
    assert "uncommitted" not in pair.notes("a.test")
    assert_nothing_is_bound(pair)


@pytest.mark.parametrize("name", ["with_own_base", "write"])
def test_a_task_of_a_deleted_tenant_fails_and_never_runs(running, name):
    gone, note = f"{text()}.test", text()
    running.create(gone)
    running.run("where", headers={"tenant_id": gone}).get(timeout=20)
    running.arrived(gone, running.project.delete(gone))
    assert failure(running.run(name, note, headers={"tenant_id": gone})) is TenantDeleted
    assert all(note not in running.notes(tenant) for tenant in running.files)
    assert f"of tenant {gone} is refused" in running.worker.log
    assert f"the body of {note} runs" not in running.worker.log


def test_a_base_class_with_its_own_before_start_runs_as_its_tenant(running):
    note = text()
    running.run("with_own_base", note, headers={"tenant_id": "b.test"}).get(timeout=20)
    assert note in running.notes("b.test")
    running.worker.wait_for(f"the body of {note} runs")


def test_a_task_of_an_unknown_tenant_is_retried_and_then_fails(running):
    result = running.run("write", text(), headers={"tenant_id": "nobody.test"})
    assert failure(result) is TenantNotFound
    assert running.worker.log.count(f"[{result.id}] of tenant nobody.test is retried later") == 2


@pytest.mark.parametrize("offered", ["", "A B", "../etc", "x" * 300, "@meta", 7, ["a.test"]])
def test_a_header_that_is_no_tenant_id_runs_nothing(running, offered):
    assert failure(running.run("write", text(), headers={"tenant_id": offered})) is TenantNotFound


def test_a_task_of_a_tenant_created_a_moment_ago_runs(running):
    for _ in range(5):
        created = f"{text()}.test"
        running.create(created)
        found = running.run("where", headers={"tenant_id": created}).get(timeout=20)
        assert found["database"] == running.database(created)


def test_a_task_of_a_suspended_tenant_waits_until_it_is_resumed(running):
    paused, note = f"{text()}.test", text()
    running.create(paused)
    record = running.project.record(running.files[paused])
    revision = running.project.put(paused, record, state="S")
    running.arrived(paused, revision)
    result = running.run("write", note, headers={"tenant_id": paused, "tenant_revision": revision})
    running.worker.wait_for(f"[{result.id}] of tenant {paused} is retried later", times=12)
    assert running.notes(paused) == set()
    running.project.put(paused, record)
    assert result.get(timeout=20)["database"] == running.database(paused)
    assert running.notes(paused) == {note}


def test_waiting_for_a_tenant_uses_up_none_of_the_retries_of_the_task(running):
    paused, note = f"{text()}.test", text()
    running.create(paused)
    record = running.project.record(running.files[paused])
    revision = running.project.put(paused, record, state="S")
    running.arrived(paused, revision)
    headers = {"tenant_id": paused, "tenant_revision": revision}
    result = running.run("write_at_second_try", note, headers=headers)
    failing = running.run("fail_and_retry_by_itself", headers=headers)
    for waiting in (result, failing):
        running.worker.wait_for(f"[{waiting.id}] of tenant {paused} is retried later", times=5)
    running.project.put(paused, record)
    assert result.get(timeout=20)["retries"] == 1
    assert failure(failing) is KeyError
    assert running.worker.log.count(f"fail_and_retry_by_itself[{failing.id}] retry: Retry in 0.01s") <= 1


def test_a_task_waits_for_the_revision_on_which_it_was_published(running):
    for _ in range(5):
        revision = running.create("a.test")
        found = running.run("where", headers={"tenant_id": "a.test", "tenant_revision": revision}).get(timeout=20)
        assert found["revision"] >= revision
        assert found["database"] == running.database("a.test")


def test_a_running_task_ends_on_the_database_on_which_it_began(running):
    moved = f"{text()}.test"
    running.create(moved)
    old = running.database(moved)
    with running.locked(moved):  # where the task has to wait after it has been bound
        result = running.run("wait_and_report", 0, headers={"tenant_id": moved})
        eventually(lambda: running.has_opened(old))
        revision = running.create(moved)
        running.arrived(moved, revision)
        later = running.run("where", headers={"tenant_id": moved, "tenant_revision": revision})
        assert later.get(timeout=20)["database"] == running.database(moved)
    assert [found["database"] for found in result.get(timeout=20)] == [old, old]


def test_a_killed_child_is_replaced_by_one_that_follows(running):
    if running.pool != "prefork":
        pytest.skip("only a prefork worker has children")
    before = running.worker.children()

    def replaced():
        found = running.worker.children()
        return found if (len(found), len(found - before)) == (2, 1) else None

    running.run("end_this_process")
    found = eventually(replaced, 60)
    running.worker.wait_applied(found, "b.test", running.create("b.test"))
    found = [running.run("where", headers={"tenant_id": "b.test"}) for _ in range(8)]
    assert {result.get(timeout=20)["database"] for result in found} == {running.database("b.test")}


@pytest.mark.parametrize(
    ("pool", "broken", "line"),
    [
        ("prefork", {"TESTS_REDIS_URL": "unix:///nowhere/redis.sock", "TESTS_BOOT_TIMEOUT": "0.2"}, "cannot be read"),
        ("threads", {}, "holds nothing for service"),
        ("prefork", {"TENANT_ID": "a.test"}, "TENANT_ID is set"),
    ],
    ids=["unreachable", "empty", "TENANT_ID"],
)
def test_a_worker_that_cannot_serve_stops_with_one_line(redis_server, tmp_path, pool, broken, line):
    project = Project(redis_server, tmp_path)
    with project.start("-m", "celery", "-A", "tests.app", "worker", *POOLS[pool], *QUIET, **broken) as worker:
        assert worker.wait_ended() == 1
        assert [said for said in worker.log.splitlines() if line in said][-1].startswith("tenant_router: ")
        assert "Traceback" not in worker.log
