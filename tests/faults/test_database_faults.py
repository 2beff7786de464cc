"""A database that hangs, and clocks that jump: neither stops a process from following its store."""

import ast
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import tenant_router
from tests.integration.test_live_servers import served
from tests.processes import Project, Site
from tests.servers import PostgresServer, short_directory
from tests.tenants import eventually


def on_postgres(database, host, **settings):
    return {"orm_config": {"django_orm": {"default": {"NAME": database, "HOST": host, **settings}}}}


def test_a_postgresql_that_hangs_dies_and_comes_back(redis_server, tmp_path, pg_database, pg_environment):
    """One tenant's server does; the other tenants and all changes go on meanwhile."""
    project = Project(redis_server, tmp_path, TESTS_IDLE="0.5", **pg_environment)
    project.put("good.test", project.record(pg_database("good")))
    with socket.socket() as bound, served(project, "gunicorn") as (process, site, pids):
        bound.bind(("127.0.0.1", 0))  # nobody else has the port, and nobody listens on it yet
        bound.settimeout(60)
        silent = {"PORT": bound.getsockname()[1]}
        for tenant_id, seconds in (("bad.test", 90), ("brief.test", 2)):
            record = on_postgres("x", "127.0.0.1", **silent, OPTIONS={"connect_timeout": seconds})
            process.wait_applied(pids, tenant_id, project.put(tenant_id, record))
            assert site.get(tenant_id, "/notes/").status_code == 503  # refused
        with closing(Site(site.port)) as visitor, ThreadPoolExecutor(3) as pool:
            with ExitStack() as silence:
                bound.listen()
                brief = pool.submit(visitor.get, "brief.test", "/notes/", timeout=120)
                slow = [pool.submit(visitor.get, "bad.test", "/notes/", timeout=120) for _ in range(2)]
                for _ in range(3):
                    silence.enter_context(bound.accept()[0])  # accepted, and no word
                silence.callback(bound.close)
                for number in range(5):
                    revision = project.put(f"new{number}.test", project.record(pg_database("new")))
                    process.wait_applied(pids, f"new{number}.test", revision)
                    assert site.get("good.test", "/notes/").status_code == 200
                assert brief.result().status_code == 503
                assert not any(answer.done() for answer in slow)  # all of that happened meanwhile
            assert {answer.result().status_code for answer in slow} == {503}
        moved = project.put("bad.test", project.record(pg_database("moved")))
        process.wait_applied(pids, "bad.test", moved)
        assert site.get("bad.test", "/notes/").status_code == 200


def test_a_postgresql_that_is_restarted(redis_server, tmp_path, pg_environment):
    """Persistent connections that died are made anew; nobody restarts the site."""
    with short_directory() as directory:
        postgres = PostgresServer(directory)
        postgres.start()
        try:
            postgres.create_database("shop")
            environment = {**pg_environment, "TESTS_PG_HOST": postgres.host, "TESTS_CONN_MAX_AGE": "none"}
            project = Project(redis_server, tmp_path, **environment)
            project.put("a.test", project.record("shop"))
            project.manage("migrate_all", "--exclude-reserved-aliases")
            with served(project, "gunicorn") as (_, site, _):
                assert site.get("a.test", "/notes/").status_code == 200
                killed = _kill_sessions(postgres)
                assert killed
                statuses = [site.get("a.test", "/notes/").status_code for _ in range(20)]
                assert statuses.count(200) >= 20 - killed  # each costs one visitor at most
                assert set(statuses) <= {200, 500, 503}
        finally:
            postgres.stop()


def _kill_sessions(postgres):
    """Returns how many there were; none of them is left, since each ends when it is its turn to run."""
    ours = "FROM pg_stat_activity WHERE datname = 'shop' AND backend_type = 'client backend'"
    with postgres.connect("postgres") as connection:
        pids = [pid for pid, _ in connection.execute(f"SELECT pid, pg_terminate_backend(pid) {ours}")]
        eventually(lambda: not connection.execute(f"SELECT 1 {ours} AND pid = ANY(%s)", [pids]).fetchone())
    return len(pids)


def test_no_decision_is_made_by_the_wall_clock():
    """It may jump by an hour; only the age of the last-good file, which outlives processes, is told by it."""
    root = Path(tenant_router.__file__).parent
    found = set()
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and ast.unparse(node) in {"time.time", "datetime.now", "timezone.now"}:
                found.add(path.relative_to(root).as_posix())
    # the store's own, and its test; when a run began, for its report
    clock = {
        *("config_store/backends/memory.py", "config_store/backends/memory_content.py"),
        *("testing/store_contract/keeping.py", "management/executing.py"),
    }
    assert found <= {"reactive/last_good.py", "celery/fan_out.py", "celery/beat.py"} | clock, found
