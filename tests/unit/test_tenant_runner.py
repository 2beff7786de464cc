"""One job per tenant: each once, a few at once, failures are nobody else's."""

import signal
import threading

import pytest
from django.core.management.base import CommandError
from hypothesis import given
from hypothesis import strategies as st

from tenant_router.fleet.interrupts import finishing_first
from tenant_router.fleet.outcomes import JobFailed, Outcome
from tenant_router.fleet.runner import Runner
from tests.tenants import eventually

TENANTS = [f"t{number}" for number in range(12)]
EXECUTORS = pytest.mark.parametrize("threads", [0, 3], ids=["here", "threads"])


@EXECUTORS
def test_outcomes_come_in_the_order_of_the_tenants(threads):
    told = []
    found = Runner(str.upper, threads=threads, told=told.append).run([*TENANTS, TENANTS[0]])
    assert [(one.tenant_id, one.status, one.value) for one in found] == [(one, "ok", one.upper()) for one in TENANTS]
    assert sorted(told) == sorted(found)


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ValueError("no\n  price"), 1, "ValueError: no price"),
        (KeyError(), 1, "KeyError"),
        (CommandError("bad", returncode=7), 7, "CommandError: bad"),
        (SystemExit(3), 3, "SystemExit: 3"),
        (SystemExit("bye"), 1, "SystemExit: bye"),
        (JobFailed("killed", 137), 137, "killed"),
        (ValueError("postgres://u:canary-5f3a@db/x"), 1, "ValueError: postgres://u:***@db/x"),
        (ValueError("\x1b[2J"), 1, r"ValueError: \x1b[2J"),
    ],
)
def test_what_a_job_raises_is_its_tenants_outcome(error, code, line):
    def job(tenant_id):
        if tenant_id == "t1":
            raise error

    found = Runner(job).run(TENANTS)
    assert [one.tenant_id for one in found if not one.ok] == ["t1"]
    assert (found[1].exit_code, found[1].line) == (code, line)
    assert found[1].error is error


def test_leaving_without_a_code_is_no_failure():
    def job(tenant_id):
        raise SystemExit

    assert [one.status for one in Runner(job).run(["a"])] == ["ok"]


@given(
    st.integers(1, 4),
    st.lists(st.booleans(), max_size=12),
    st.one_of(st.none(), st.integers(0, 3)),
)
def test_each_once_and_few_at_once(threads, failing, most):
    """Whatever fails: nobody twice, at most ``threads`` at once, and no more than the limit allows is begun."""
    lock, ran, running, peak = threading.Lock(), [], set(), [0]
    wanted = TENANTS[: len(failing)]

    def job(tenant_id):
        with lock:
            ran.append(tenant_id)
            running.add(tenant_id)
            peak[0] = max(peak[0], len(running))
        try:
            if failing[wanted.index(tenant_id)]:
                raise ValueError
        finally:
            with lock:
                running.discard(tenant_id)

    left = []
    found = Runner(job, threads=threads, max_failures=most, leave_thread=lambda: left.append(1)).run(wanted)
    assert sorted(ran) == sorted(set(ran))
    assert peak[0] <= threads
    assert [one.tenant_id for one in found] == wanted
    assert {one.tenant_id for one in found if one.status != "not run"} == set(ran)
    assert [one.status for one in found if one.tenant_id in ran] == [
        "failed" if bad else "ok" for bad, one in zip(failing, wanted, strict=True) if one in ran
    ]
    failures = sum(one.status == "failed" for one in found)
    if most is None or failures <= most:
        assert len(ran) == len(wanted)
    else:
        assert failures <= most + threads
    assert len(left) == min(threads, len(wanted))


def test_they_run_at_the_same_time():
    barrier = threading.Barrier(4)
    found = Runner(lambda tenant_id: barrier.wait(60), threads=4).run(TENANTS[:4])
    assert all(one.ok for one in found)


def test_what_is_asked_to_finish_begins_nothing_new():
    runner = Runner(lambda tenant_id: runner.finish() if tenant_id == "t2" else None)
    assert [one.status for one in runner.run(TENANTS[:5])] == ["ok", "ok", "ok", "not run", "not run"]
    assert runner.interrupted


def test_an_interruption_stops_at_once_here():
    def job(tenant_id):
        if tenant_id == "t1":
            raise KeyboardInterrupt

    runner = Runner(job)
    assert [one.status for one in runner.run(TENANTS[:3])] == ["ok", "stopped", "not run"]
    assert runner.interrupted


def test_an_interruption_stops_at_once_in_threads():
    """What can be killed is waited for; what was done until then is told."""
    killed, begun = threading.Event(), threading.Barrier(3)

    def job(tenant_id):
        if tenant_id != "t0":
            begun.wait(60)
            killed.wait(60)
            raise JobFailed("killed")

    def told(outcome):
        begun.wait(60)  # of both threads
        raise KeyboardInterrupt

    runner = Runner(job, threads=2, told=told, kill=killed.set)
    assert [one.status for one in runner.run(TENANTS[:5])] == ["ok", "stopped", "stopped", "not run", "not run"]
    runner.join()


def test_what_was_done_when_it_was_stopped_is_told():
    def told(outcome):
        eventually(lambda: not runner.running)
        raise KeyboardInterrupt

    runner = Runner(str.upper, threads=2, told=told)
    assert [one.status for one in runner.run(["a", "b"])] == ["ok", "ok"]


def test_who_is_told_may_fail_and_nothing_new_is_begun():
    ran = []

    def told(outcome):
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space"):
        Runner(ran.append, told=told).run(TENANTS)
    assert ran == ["t0"]


def test_the_second_interruption_is_pythons_own():
    first = []
    with finishing_first(lambda: first.append(1)):
        signal.raise_signal(signal.SIGINT)
        assert first == [1]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_sigterm_stops_at_once():
    with finishing_first(lambda: None), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.parametrize("handler", [signal.SIG_IGN, lambda number, frame: None])
def test_a_handler_of_somebody_elses_stays(handler):
    before = signal.signal(signal.SIGINT, handler)
    try:
        with finishing_first(lambda: None):
            assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_an_outcome_for_programs():
    assert Outcome("a", "not run").as_dict() == {
        "id": "a",
        "outcome": "not run",
        "seconds": 0.0,
        "exit_code": None,
        "error": "",
    }
