"""Real servers that follow a real store: every process takes every change, without being asked for it."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager

import psutil
import pytest

from tests.processes import MANAGE, Project, Site, latencies, now
from tests.servers import free_port
from tests.tenants import eventually

RUNSERVER = [*MANAGE[1:], "runserver", "{port}"]
UVICORN = ["-m", "uvicorn", "tests.asgi:application", "--port", "{port}", "--no-access-log"]
GUNICORN = ["-m", "gunicorn", "tests.wsgi:application", "-b", "127.0.0.1:{port}", "-k", "gthread"]
GUNICORN += ["-w", "2", "--threads", "4", "--no-control-socket"]
CELERY = ["-m", "celery", "-A", "tests.app", "worker", "-c", "2", "--without-gossip", "--without-mingle", "-l", "INFO"]

# command -> (its arguments, how many of its processes serve, how often it synchronises before it serves)
WEB = {
    "gunicorn": (GUNICORN, 2, 2),
    "gunicorn --preload": ([*GUNICORN, "--preload"], 2, 1),
    "uvicorn": (UVICORN, 1, 1),
    "uvicorn, 2 workers": ([*UVICORN, "--workers", "2"], 2, 2),
    "runserver": (RUNSERVER, 1, 1),
    "runserver --noreload": ([*RUNSERVER, "--noreload"], 1, 1),
}
ON_POSTGRESQL = {"gunicorn", "uvicorn"}
WORKERS = {"celery prefork": [*CELERY, "-P", "prefork"], "celery threads": [*CELERY, "-P", "threads"]}


def filled(arguments, port):
    return [argument.format(port=port) for argument in arguments]


def serving(process, expected):
    """The pids that serve: the leaves of the tree, which may still be growing."""

    def found():
        leaves = process.children() or {process.pid}
        return leaves if len(leaves) == expected else None

    return eventually(found, 20)


@contextmanager
def served(project, name):
    arguments, expected, synchronised = WEB[name]
    with closing(Site()) as site, project.start(*filled(arguments, site.port)) as process:
        process.wait_for("synchronised at revision", times=synchronised)
        site.wait_until_up(process)
        yield process, site, serving(process, expected)


@pytest.fixture
def database(request, name):
    """Each server has one kind of databases: what makes one, whether processes use one now, and the environment."""
    if name not in ON_POSTGRESQL:
        return request.getfixturevalue("sqlite_file"), has_file, {}
    server = request.getfixturevalue("postgres_server")
    environment = request.getfixturevalue("pg_environment")
    return request.getfixturevalue("pg_database"), lambda pids, made: has_session(server, made), environment


def has_file(pids, path):
    return any(file.path == str(path) for pid in pids for file in psutil.Process(pid).open_files())


def has_session(server, database):
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND backend_type = 'client backend'"
    with server.connect("postgres") as plain:
        return plain.execute(query, [database]).fetchone()[0] > 0


def answers(site, tenant_id, path="/whoami/"):
    """Ask often enough that each process of a server is met."""
    return [site.get(tenant_id, path) for _ in range(12)]


@contextmanager
def request_under_way(site, tenant_id, uses_database):
    """A slow request that has begun, which its database shows; inside the block its answer is still to come."""
    with closing(Site(site.port)) as visitor, ThreadPoolExecutor(1) as pool:
        eventually(lambda: not uses_database())  # who has an answer may still be ending
        answer = pool.submit(visitor.get, tenant_id, "/slow/?seconds=0.8")
        eventually(lambda: uses_database() or answer.done())
        yield answer


@pytest.mark.parametrize("name", WEB)
def test_a_web_server_follows_the_store(redis_server, tmp_path, database, name):
    make, in_use, environment = database
    first, second = make("first"), make("second")
    project = Project(redis_server, tmp_path, **environment)
    project.put("old.test", project.record(make("old")))
    with served(project, name) as (process, site, pids):
        begins_to_serve_a_new_tenant(project, process, site, pids, first)
        with request_under_way(site, "new.test", lambda: in_use(pids, first)) as answer:
            moves_a_tenant(project, process, site, pids, second)
        found = answer.result().json()
        assert found["before"] == found["after"] == ["in the first database"], "it ends where it began"
        with request_under_way(site, "new.test", lambda: in_use(pids, second)) as answer:
            answers_410_for_a_deleted_tenant(project, process, site, pids)
        assert answer.result().status_code == 200
        assert site.get("old.test", "/whoami/").status_code == 200
        assert process.children() | {process.pid} >= pids, "a process was replaced"
        assert "CRITICAL" not in process.log
        assert process.terminate() in (0, -15)


def begins_to_serve_a_new_tenant(project, process, site, pids, database):
    revision = project.load(**{"new.test": project.record(database)})
    process.wait_applied(pids, "new.test", revision)
    assert {answer.status_code for answer in answers(site, "new.test")} == {200}
    assert site.post("new.test", "/notes/", json={"text": "in the first database"}).status_code == 200


def moves_a_tenant(project, process, site, pids, database):
    begun = now()
    revision = project.put("new.test", project.record(database))
    latencies(begun, process.wait_applied(pids, "new.test", revision))
    assert {tuple(answer.json()["notes"]) for answer in answers(site, "new.test", "/notes/")} == {()}


def answers_410_for_a_deleted_tenant(project, process, site, pids):
    process.wait_applied(pids, "new.test", project.delete("new.test"))
    assert {answer.status_code for answer in answers(site, "new.test")} == {410}


@pytest.mark.parametrize("name", WORKERS)
def test_a_worker_follows_the_store_without_a_task(redis_server, tmp_path, sqlite_file, name):
    project = Project(redis_server, tmp_path)
    project.put("old.test", project.record(sqlite_file("old")))
    with project.start(*WORKERS[name]) as worker:
        worker.wait_for("ready.")
        pids = serving(worker, 2 if "prefork" in name else 1)
        revision = project.load(**{"new.test": project.record(sqlite_file("first"))})
        worker.wait_applied(pids, "new.test", revision)
        begun = now()
        revision = project.put("new.test", project.record(sqlite_file("second")))
        latencies(begun, worker.wait_applied(pids, "new.test", revision))
        worker.wait_applied(pids, "new.test", project.delete("new.test"))
        assert worker.pid in pids or worker.pid not in worker.applied("new.test", 1), "the main process has a reader"
        assert worker.terminate() == 0


def test_a_preloading_master_has_neither_a_thread_nor_a_socket_of_the_store(redis_server, tmp_path, sqlite_file):
    project = Project(redis_server, tmp_path, TESTS_REDIS_URL=redis_server.url)
    project.put("old.test", project.record(sqlite_file("old")))
    with served(project, "gunicorn --preload") as (process, _, pids):
        master = psutil.Process(process.pid)
        assert master.num_threads() == 1
        assert store_connections(redis_server, process.pid) == 0
        # one for commands and one for pushes; a look-up at the same moment as a command has one more
        eventually(lambda: all(store_connections(redis_server, pid) in (2, 3) for pid in pids), 30)
        assert process.terminate() == 0


def store_connections(redis_server, pid):
    found = psutil.Process(pid).net_connections("tcp")
    return sum(1 for known in found if known.raddr and known.raddr.port == redis_server.port)


BROKEN = {
    "unreachable": ({"TESTS_REDIS_URL": "unix:///nowhere/redis.sock", "TESTS_BOOT_TIMEOUT": "0.2"}, "cannot be read"),
    "empty": ({}, "holds nothing for service"),
}


@pytest.mark.parametrize(
    ("name", "broken"),
    [
        ("gunicorn", "unreachable"),
        ("gunicorn --preload", "empty"),
        ("uvicorn", "empty"),
        ("runserver --noreload", "unreachable"),
    ],
)
def test_a_server_that_cannot_read_its_store_stops(redis_server, tmp_path, name, broken):
    environment, line = BROKEN[broken]
    project, arguments = Project(redis_server, tmp_path), filled(WEB[name][0], free_port())
    with project.start(*arguments, **environment) as process:
        assert process.wait_ended() != 0
        assert any(line in said for said in process.log.splitlines())
    if name.startswith("runserver"):
        assert "Traceback" not in process.log


def test_the_reloader_says_why_its_server_does_not_start(redis_server, tmp_path):
    """It stays itself, to start the server when a file changes."""
    project = Project(redis_server, tmp_path)
    with project.start(*filled(RUNSERVER, free_port())) as process:
        process.wait_for("holds nothing for service")
        assert "Traceback" not in process.log


def test_a_server_does_not_start_bound_to_a_tenant(redis_server, tmp_path):
    project = Project(redis_server, tmp_path)
    with project.start(*filled(UVICORN, free_port()), TENANT_ID="a.test") as process:
        assert process.wait_ended() != 0
        assert "TENANT_ID is set" in process.log.splitlines()[-1]
