"""Forks of processes that follow the store, as servers, pools and scripts make them."""

import multiprocessing
import os
import select
import signal
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connection

from tenant_router.context_decorators import tenant_context_bind
from tenant_router.managers import tenant_context_manager
from tests.app.models import Note
from tests.processes import Project
from tests.tenants import eventually

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
PATIENCE = 60  # seconds for a child; what it waits for itself takes less


@pytest.fixture
def project(redis_server, tmp_path, sqlite_file):
    made = Project(redis_server, tmp_path)
    made.put("a.test", made.record(sqlite_file("first")))
    return made


@pytest.fixture
def server(project, runtime_on):
    """This process, serving."""
    runtime = runtime_on(project)
    runtime.serve("web")
    assert database("a.test").startswith("first")
    eventually(lambda: runtime.reflector.ready)
    return runtime


def database(tenant_id):
    with tenant_context_bind(tenant_id) as context:
        return os.path.basename(context.parts["django_orm"]["default"].settings["NAME"])


def reader_threads():
    return [thread for thread in threading.enumerate() if thread.name == "tenant_router-reflector"]


def in_fork(function, *arguments):
    """Run ``function`` in a child made by ``os.fork`` and return what it returned, a string."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            answer = str(function(*arguments))
        except BaseException:
            answer = traceback.format_exc()
        os.write(writing, answer.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as stream:
        answered, _, _ = select.select([stream], [], [], PATIENCE)
        answer = stream.read() if answered else "it hangs"
    if not answered:
        os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return answer


def socket_of(connection):
    return os.fstat(connection._sock.fileno()).st_ino


def in_multiprocessing(function, *arguments):
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    child = context.Process(target=lambda: answers.put(attempt(function, *arguments)))
    child.start()
    child.join(PATIENCE)
    assert child.exitcode == 0
    answer = answers.get()
    answers.close()
    return answer


def attempt(function, *arguments):
    try:
        return str(function(*arguments))
    except BaseException:
        return traceback.format_exc()


def moved(project, sqlite_file):
    """In a child: change the tenant, and see what the child finds then."""
    before = database("a.test")
    project.store.reset_after_fork()
    project.put("a.test", project.record(sqlite_file("moved")))
    eventually(lambda: database("a.test").startswith("moved"))
    return f"{before.partition('-')[0]} then {database('a.test').partition('-')[0]}"


def test_a_forked_server_follows_on_its_own(server, project, sqlite_file):
    assert in_fork(lambda: len(reader_threads())) == "1"
    assert in_fork(moved, project, sqlite_file) == "first then moved"
    eventually(lambda: database("a.test").startswith("moved"))


def test_a_child_of_multiprocessing_has_no_thread_until_it_asks(server, project, sqlite_file):
    assert in_multiprocessing(lambda: len(reader_threads())) == "0"

    def asking():
        tenant_context_manager.get_by_id("a.test")
        return len(reader_threads())

    assert in_multiprocessing(asking) == "1"
    assert in_multiprocessing(lambda: [asking(), "a.test" in tenant_context_manager.serving]) == "[1, True]"
    assert in_multiprocessing(moved, project, sqlite_file) == "first then moved"


def test_a_late_question_of_a_child_is_answered_from_the_store(server, project, sqlite_file):
    """Not from what the parent knew when it forked."""

    def late():
        project.store.reset_after_fork()
        project.put("a.test", project.record(sqlite_file("changed")))
        return database("a.test").partition("-")[0]

    assert in_multiprocessing(late) == "changed"


@pytest.mark.parametrize("fork", [in_fork, in_multiprocessing])
def test_a_fork_of_a_script_synchronises_when_it_asks(project, runtime_on, sqlite_file, fork):
    runtime_on(project)
    assert database("a.test").startswith("first")
    assert fork(lambda: len(reader_threads())) == "0"
    assert fork(moved, project, sqlite_file) == "first then moved"


def test_the_sockets_of_the_parent_survive_their_children(server, project, sqlite_file):
    store = server.store
    for _ in range(3):
        assert in_fork(lambda: server.store.head().rev) == str(project.store.head().rev)
        assert in_multiprocessing(lambda: server.store.head().rev) == str(project.store.head().rev)
    assert store.head() == project.store.head()
    project.put("a.test", project.record(sqlite_file("parent")))
    eventually(lambda: database("a.test").startswith("parent"))
    assert server.reflector._failures == 0


def test_a_forked_server_listens_on_a_socket_of_its_own(server):
    """On its parent's it would read what is meant for the parent."""
    eventually(lambda: server.store._subscription.listening)
    own = socket_of(server.store._subscription._connection)

    def child():
        eventually(lambda: server.store._subscription.listening)
        return socket_of(server.store._subscription._connection)

    found = in_fork(child)
    assert found.isdigit(), found
    assert int(found) != own


def test_a_child_needs_no_lock_that_a_thread_of_its_parent_holds(server, project, sqlite_file):
    held, release = threading.Event(), threading.Event()

    def hold():
        with server._lock, server.reflector._lock, server.pipeline._lock, server.records._look_ups._lock:
            held.set()
            release.wait()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(hold)
        held.wait()
        try:
            assert in_fork(lambda: server.pipeline._lock.acquire(timeout=20)) == "True"
            assert in_fork(moved, project, sqlite_file) == "first then moved"
        finally:
            release.set()


def test_an_open_connection_of_the_parent_survives(server):
    with tenant_context_bind("a.test"):
        Note.objects.create(text="parent")

        def child():
            with tenant_context_bind("a.test"):
                assert connection.connection is None
                Note.objects.create(text="child")
                return list(Note.objects.order_by("id").values_list("text", flat=True))

        assert in_fork(child) == "['parent', 'child']"
        assert Note.objects.count() == 2


def test_a_fork_while_changes_pour_in_never_hangs(server, project, sqlite_file):
    """Whatever lock the parent's reader holds at that moment."""
    files = [project.record(sqlite_file(f"n{number}")) for number in range(2)]
    stopping = threading.Event()

    def write():
        number = 0
        while not stopping.is_set():
            number += 1
            project.put("a.test", files[number % 2])

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(15):
            assert in_fork(lambda: database("a.test")[0]) in ("f", "n")  # the first one, or one of the new ones
    finally:
        stopping.set()
        writer.join()


def test_a_child_is_as_old_as_what_it_has_from_its_parent(server):
    """Until it has heard of the store itself: it does not say READY, and ``MAX_STALENESS`` counts from then."""
    server.reflector.stop()  # and its store, so that the child hears nothing
    server.reflector._contact = time.monotonic() - 600
    assert in_fork(lambda: (server.reflector.since_contact > 300, server.reflector.state)) == "(True, 'STALE')"
