"""The one thread that closes what may not be closed where it is let go of."""

import threading
import time

from tenant_router.janitor import Janitor
from tests.integration.test_fork import in_fork
from tests.tenants import eventually


def test_jobs_are_done_in_one_thread_in_their_order():
    janitor, done = Janitor(), []
    for number in range(20):
        janitor.do(lambda number=number: done.append((number, threading.current_thread().name)))
    eventually(lambda: len(done) == 20)
    assert done == [(number, "tenant_router-janitor") for number in range(20)]


def test_a_job_that_fails_keeps_no_other_waiting(caplog):
    janitor, done = Janitor(), threading.Event()
    janitor.do(lambda: 1 / 0)
    janitor.do(done.set)
    assert done.wait(20)
    assert "closing what is idle failed" in caplog.text


def test_it_looks_when_something_has_been_idle_for_too_long():
    looked = threading.Event()
    janitor = Janitor(looked.set)
    janitor.look_at(time.monotonic() + 0.01)
    assert looked.wait(20)


def test_a_process_that_only_forks_its_servers_has_no_thread(monkeypatch):
    monkeypatch.setattr(Janitor, "threaded", False)
    janitor, before, done = Janitor(), threading.active_count(), []
    janitor.do(lambda: done.append(threading.current_thread()))
    janitor.look_at(time.monotonic())
    assert done == [threading.current_thread()]
    assert threading.active_count() == before
    assert in_fork(lambda: Janitor.threaded) == "True"


def test_it_ends_when_it_is_told_and_begins_again_with_the_next_job():
    janitor, done = Janitor(), []
    janitor.do(lambda: done.append(1))
    thread = janitor._thread
    janitor.stop()
    assert done == [1]
    assert not thread.is_alive()
    janitor.do(lambda: done.append(2))
    eventually(lambda: done == [1, 2])


def test_what_the_collector_gives_it_is_done_where_a_thread_is():
    janitor, done = Janitor(), []
    janitor.do_if_running(lambda: done.append("lost"))
    assert janitor._thread is None
    janitor.do(lambda: done.append(1))
    janitor.do_if_running(lambda: done.append(2))
    eventually(lambda: done == [1, 2])
    janitor.stop()
    janitor.do_if_running(lambda: done.append("lost"))
    assert janitor._jobs.empty()


def test_a_job_that_comes_while_the_thread_is_being_started_waits_for_nobody():
    """The garbage collector may run, and bring one, wherever a thread is: also where it starts the janitor's."""
    janitor, done = Janitor(), []
    with janitor._lock:  # which is not re-entrant
        janitor.do(lambda: done.append("first"))
    janitor.do(lambda: done.append("second"))
    janitor.stop()
    assert done == ["first", "second"]
