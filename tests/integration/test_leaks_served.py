"""The corpus of leaky code under real servers: each snippet has its verdict in threads of gunicorn, uvicorn, Celery."""

import shutil
from contextlib import closing

import pytest
from celery import Celery

from tests.leaky import CORPUS
from tests.processes import Project, Site
from tests.servers import free_port

EXPECTED = {"harmless": "of b", "refused": "refused", "yours": "of a"}
# A server that closes idle connections sooner than their client may close one that is about to be used.
THREADS = ["-k", "gthread", "-w", "1", "--threads", "4", "--no-control-socket", "--keep-alive", "60"]
ASGI = ["-m", "uvicorn", "tests.asgi:application", "--no-access-log", "--timeout-keep-alive", "60"]
WEB = {
    "gunicorn": ["-m", "gunicorn", "tests.wsgi:application", *THREADS, "-b", "127.0.0.1:{port}"],
    "uvicorn": [*ASGI, "--port", "{port}"],
}
WORKER = ["-m", "celery", "-A", "tests.app", "worker", "-P", "threads", "-c", "4", "-l", "INFO"]


@pytest.fixture
def project(redis_server, tmp_path, pair):
    made = Project(redis_server, tmp_path, DJANGO_SETTINGS_MODULE="tests.settings_leaks")
    for tenant_id in ("a.test", "b.test"):
        made.put(tenant_id, made.record(tmp_path / f"served-{tenant_id}.db"))
    return made


def _all(project, ask):
    """Ask for each snippet, with databases that none has changed; the verdicts that differ."""
    found = {}
    for name in CORPUS:
        for tenant_id in ("a.test", "b.test"):
            shutil.copy(project.directory / f"{tenant_id}.db", project.directory / f"served-{tenant_id}.db")
        found[name] = ask(name)
    assert len(found) > 70
    return {name: value for name, value in found.items() if value != EXPECTED[CORPUS[name][0]]}


@pytest.mark.parametrize("server", WEB)
def test_in_a_view(project, server):
    port = free_port()
    command = [argument.format(port=port) for argument in WEB[server]]
    with closing(Site(port)) as site, project.start(*command) as web:
        site.wait_until_up(web)

        def ask(name):
            answer = site.get("nobody.test", f"/leak/{name}/")
            assert answer.status_code == 200, web.log[-4000:]
            return answer.json()["found"]

        assert _all(project, ask) == {}


def test_in_a_task(project):
    backend = project.environment["TESTS_RESULT_URL"]
    client = Celery("sender", broker=project.broker, backend=backend, set_as_current=False)
    with closing(client), project.start(*WORKER) as worker:
        worker.wait_for("ready.")

        def ask(name):
            task = "tests.leaky_served.leak_in_a_task"
            return client.send_task(task, (name,), queue=project.service).get(timeout=30)

        assert _all(project, ask) == {}
