"""An application written for one tenant, served to eight at once by real servers while their configuration changes.

Every answer must be the asked tenant's, every write must be found in that tenant's database and in
no other, and nothing may fail.
"""

import functools
import itertools
import random
import sqlite3
import threading
import time
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager

import httpx
import pytest

from tests.processes import Project, Site
from tests.tenants import eventually

TENANTS = [f"t{number}.test" for number in range(8)]
VISITORS, ROUNDS = 8, 4
ADMIN = (  # whose password is "a"; the salt is long enough that a login does not hash it anew
    "INSERT INTO auth_user (username, password, is_superuser, is_staff, is_active, first_name, last_name, email,"
    " date_joined) VALUES ('admin',"
    " 'md5$saltsaltsaltsaltsaltsalt$9708265b093158e3a229aa4d07e9e8ea', true, true, true, '', '', '', '2026-01-01')"
)
SEND_LATER = ["-P", "threads", "-c", "4", "--without-gossip", "--without-mingle", "--without-heartbeat", "-l", "INFO"]
THREADS = ["-k", "gthread", "-w", "2", "--threads", "4", "--no-control-socket"]
# A server that closes idle connections sooner than their client may close one that is about to be used.
WSGI = ["-m", "gunicorn", "tests.wsgi:application", *THREADS, "--keep-alive", "60"]
ASGI = ["-m", "uvicorn", "tests.asgi:application", "--no-access-log", "--timeout-keep-alive", "60"]

# name -> (server, database, environment)
VARIANTS = {
    "gunicorn, PostgreSQL, ATOMIC_REQUESTS": (WSGI, "PostgreSQL", {"TESTS_ATOMIC_REQUESTS": "1"}),
    "gunicorn, PostgreSQL, CONN_MAX_AGE None": (WSGI, "PostgreSQL", {"TESTS_CONN_MAX_AGE": "none"}),
    "gunicorn, PostgreSQL, pools": (WSGI, "PostgreSQL", {"TESTS_POOL": "4"}),
    "uvicorn, PostgreSQL": (ASGI, "PostgreSQL", {}),
    "gunicorn, SQLite": (WSGI, "SQLite", {}),
}


class Databases:
    """The tenants' databases, looked at behind the back of the application."""

    def __init__(self, make, connect):
        self._make, self._connect = make, connect
        self.names = {tenant_id: [self.new(tenant_id)] for tenant_id in TENANTS}
        self.names[TENANTS[0]].append(self.new(TENANTS[0]))  # the tenant that moves to and fro

    def new(self, tenant_id):
        name = self._make(tenant_id.partition(".")[0])
        self._run(name, ADMIN)
        return name

    def _run(self, name, statement):
        with closing(self._connect(name)) as connection:
            found = connection.execute(statement)
            rows = found.fetchall() if found.description else []
            connection.commit()
            return rows

    def clear(self):
        for name in itertools.chain.from_iterable(self.names.values()):
            for table in ("app_note", "app_counter"):
                self._run(name, f"DELETE FROM {table}")

    def notes(self, tenant_id):
        names = self.names[tenant_id]
        return Counter(row[0] for name in names for row in self._run(name, "SELECT text FROM app_note"))

    def count(self, tenant_id):
        return sum(row[0] for name in self.names[tenant_id] for row in self._run(name, "SELECT value FROM app_counter"))


@pytest.fixture(scope="module")
def databases_of(postgres_server, pg_database, sqlite_file):
    """The databases of each kind, made when first asked for."""
    # Who holds a lock of SQLite may stand still.
    sqlite = functools.partial(sqlite3.connect, timeout=60)
    kinds = {"PostgreSQL": (pg_database, postgres_server.connect), "SQLite": (sqlite_file, sqlite)}
    return functools.cache(lambda kind: Databases(*kinds[kind]))


@pytest.fixture(params=VARIANTS)
def variant(request, redis_server, pg_environment, databases_of, tmp_path):
    server, kind, environment = VARIANTS[request.param]
    databases = databases_of(kind)
    databases.clear()
    if kind == "PostgreSQL":
        environment = environment | pg_environment
    return server, databases, Project(redis_server, tmp_path, **environment)


@contextmanager
def served(project, server):
    """The application's web server and its worker."""
    with ExitStack() as stack:
        site = stack.enter_context(closing(Site()))
        address = ["--port", str(site.port)] if "uvicorn" in server else ["-b", f"127.0.0.1:{site.port}"]
        web = stack.enter_context(project.start(*server, *address))
        worker = stack.enter_context(project.start("-m", "celery", "-A", "tests.app", "worker", *SEND_LATER))
        site.wait_until_up(web)
        worker.wait_for("ready.")
        yield site, web, worker
        site.close()  # gunicorn waits a while for who may go on asking
        for process in (web, worker):
            process.terminate()


@contextmanager
def changing(project, databases):
    """Change the configuration of all tenants all the time; the first one moves between two databases."""
    stopping = threading.Event()

    def change():
        for number in itertools.count(1):
            if stopping.wait(0.04):
                return
            tenant_id = random.choice(TENANTS)
            name = random.choice(databases.names[tenant_id])
            project.put(tenant_id, record(project, name, number))

    thread = threading.Thread(target=change)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()


def record(project, name, number=0):
    made = project.record(name)
    made["orm_config"]["django_orm"]["default"]["TEST"] = {"NAME": f"version-{number}"}
    return made


class Visitor:
    """One visitor of one tenant, with a browser's cookies."""

    def __init__(self, site, tenant_id, written, counted):
        self.tenant_id, self.written, self.counted = tenant_id, written, counted
        self.moves = tenant_id == TENANTS[0]
        self._client = httpx.Client(
            base_url=f"http://127.0.0.1:{site.port}", headers={"Host": tenant_id}, timeout=60, verify=False
        )
        self.visits = 0

    def close(self):
        self._client.close()

    def ask(self, path, status=200, **options):
        method = "POST" if "json" in options or "data" in options else "GET"
        answer = self._client.request(method, path, **options)
        assert answer.status_code == status, (self.tenant_id, path, answer.status_code, answer.text[:300])
        return answer

    def own(self, texts):
        """All of ``texts`` are of this visitor's tenant."""
        foreign = [text for text in texts if not text.startswith(f"{self.tenant_id} ")]
        assert not foreign, (self.tenant_id, foreign)

    def text(self):
        return f"{self.tenant_id} {uuid.uuid4().hex}"

    def write(self):
        text = self.text()
        found = self.ask("/notes/", json={"text": text}).json()["notes"]
        self.own(found)
        assert text in found
        self.written[self.tenant_id].append(text)

    def read(self):
        for path in ("/notes/raw/", "/notes/async/", "/notes/cached/"):
            self.own(self.ask(path).json()["notes"])
        for path in ("/notes/stream/", "/notes/stream/async/"):
            self.own(self.ask(path).text.splitlines())

    def roll_back(self):
        self.own(self.ask("/notes/rollback/", json={}).json()["notes"])

    def write_later(self):
        text = self.text()
        self.ask("/notes/later/", 202, json={"text": text})
        self.written[self.tenant_id] += [text, f"{text} committed", f"{text} by task"]

    def count(self):
        self.ask("/counter/", json={})
        self.counted[self.tenant_id].append(1)

    def cache(self):
        value = self.text()
        found = [self.ask("/cache/", params={"set": value}).json()["value"], self.ask("/cache/").json()["value"]]
        self.own([value for value in found if value is not None])

    def come_again(self):
        visits = self.ask("/session/").json()["visits"]
        if not self.moves:  # a session stays behind in the database that the tenant moved from
            assert visits == self.visits + 1
        self.visits = visits

    def log_in(self):
        token = self.ask("/admin/login/").cookies["csrftoken"]
        form = {"username": "admin", "password": "a", "csrfmiddlewaretoken": token}
        self.ask("/admin/login/", 302, data=form)
        self.visits = 0
        if not self.moves:
            self.own(line for line in notes_of(self.ask("/admin/app/note/").text))

    def round(self):
        steps = [self.write, self.read, self.roll_back, self.write_later, self.count, self.count, self.cache]
        for step in random.sample(steps, len(steps)):
            step()
        self.come_again()


def notes_of(page):
    """The notes that a page of the admin lists."""
    return [part.split("</a>")[0] for part in page.split('/change/">')[1:] if ".test " in part.split("</a>")[0]]


def visit(site, written, counted):
    """What one of the eight threads does: in each round it is a visitor of another tenant."""
    with ExitStack() as stack:
        visitors = [stack.enter_context(closing(Visitor(site, t, written, counted))) for t in TENANTS]
        random.choice(visitors).log_in()
        for visitor in random.sample(visitors, ROUNDS):
            visitor.round()
            visitor.come_again()
        strange = stack.enter_context(closing(Visitor(site, TENANTS[2], written, counted)))
        visitors[1].come_again()
        strange._client.cookies = visitors[1]._client.cookies
        assert strange.ask("/session/").json()["visits"] == 1, "a session of another tenant was accepted"


def test_eight_tenants_at_once(variant):
    server, databases, project = variant
    for tenant_id in TENANTS:
        project.put(tenant_id, record(project, databases.names[tenant_id][0]))
    written, counted = {t: [] for t in TENANTS}, {t: [] for t in TENANTS}
    with served(project, server) as (site, web, worker):
        began = time.monotonic()
        with changing(project, databases), ThreadPoolExecutor(VISITORS) as pool:
            for result in [pool.submit(visit, site, written, counted) for _ in range(VISITORS)]:
                result.result(120)
        print(f"{time.monotonic() - began:.1f} s, {project.store.head().rev} revisions")
        for tenant_id in TENANTS:
            eventually(lambda t=tenant_id: databases.notes(t) == Counter(written[t]), 60)
        assert {t: databases.count(t) for t in TENANTS} == {t: len(counted[t]) for t in TENANTS}
        for process in (web, worker):
            assert "Traceback" not in process.log, process.log[process.log.index("Traceback") :]
            assert "CRITICAL" not in process.log
