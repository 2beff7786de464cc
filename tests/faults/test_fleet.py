"""Who has which revision: leases of real processes, ``tenant_status`` and ``load_tenant_config --wait``."""

import json
import os
import signal
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import suppress

import pytest
from django.core.management import CommandError, call_command

from tenant_router.config_store.backends.memory import MemoryStore
from tenant_router.config_store.base import ACTIVE, Head, Lease, Op
from tenant_router.management.fleet import behind, table
from tenant_router.reactive.fleet import Member, Reporter, Standing, member, refusal_to_write, standing
from tests.faults.followers import following, options
from tests.processes import MANAGE, ROOT, Project
from tests.tenants import eventually

BAD = {"orm_config": {"django_orm": {"default": {"NAME": 7}}}}
PATIENT = ("--wait", "--timeout", "60")
SHORT = options(STATUS_TTL=3)  # seconds: a killed process drops out within a test's time


@pytest.fixture
def project(redis_server, tmp_path):
    project = Project(redis_server, tmp_path, TESTS_IDLE="0.3")
    project.put("a.test", project.record("a.db"))
    return project


def status(project, *arguments, **environment):
    """Exit code and output of ``tenant_status``."""
    done = subprocess.run(
        [*MANAGE, "tenant_status", *arguments],
        cwd=ROOT,
        env={**os.environ, **project.environment, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.returncode, done.stdout + done.stderr


def told(project):
    """Pid -> what each living process says."""
    return {said["pid"]: said for said in (json.loads(lease.value) for lease in project.store.leases().values())}


def test_a_stopped_process_is_named_and_a_killed_one_drops_out(project):
    with following(project, 3) as followers:
        pids = {follower.pid for follower in followers}
        eventually(lambda: told(project).keys() == pids)
        code, said = status(project, *PATIENT)
        assert (code, f"is live in all {len(pids)} processes" in said) == (0, True), said
        stopped = followers[1]
        stopped.stop()
        revision = project.put("a.test", project.record("other.db"))
        eventually(lambda: {pid for pid, one in told(project).items() if one["revision"] < revision} == {stopped.pid})
        code, said = status(project, "--wait", "--timeout", "1")
        assert code == 1, said
        lagging = said.split("is not at:")[1]
        assert [pid for pid in pids if f"pid {pid} " in lagging] == [stopped.pid]
        assert f"revision {revision} is not at" in said
        stopped.signal(signal.SIGCONT)
        code, said = status(project, *PATIENT)
        assert code == 0, said
        assert told(project)[stopped.pid]["revision"] == revision


def test_the_lease_of_a_killed_process_ends(project):
    with following(project, 2, **SHORT) as (killed, left):
        eventually(lambda: told(project).keys() == {killed.pid, left.pid})
        killed.signal(signal.SIGKILL)
        project.put("a.test", project.record("other.db"))
        code, said = status(project, *PATIENT, **SHORT)
        assert code == 0, said
        eventually(lambda: told(project).keys() == {left.pid})  # which loses its own lease while it stands still


def test_a_process_that_ends_by_itself_takes_its_leave(project):
    with following(project, 1) as (follower,):
        eventually(lambda: told(project))
        # it takes a change over after it has heard that its lease was taken: it knows then that it has one to end
        revision = project.put("a.test", project.record("other.db"))
        follower.process.wait_applied({follower.pid}, "a.test", revision)
        follower.signal(signal.SIGTERM)
        eventually(lambda: not told(project), 20)  # before the lease ends by itself


def test_a_silent_process_is_never_shown_as_ready(project):
    lasts = 16  # seconds: what is shown in the second half of them must not depend on a busy machine
    with following(project, 1, **options(STATUS_TTL=lasts)) as (follower,):
        eventually(lambda: told(project))
        follower.stop()
        try:
            eventually(lambda: [lease.age > lasts * 0.46 for lease in project.store.leases().values()] == [True], lasts)
            said = status(project, **options(STATUS_TTL=lasts))[1]
            assert "SILENT" in said
            assert "READY" not in said
        finally:
            follower.signal(signal.SIGCONT)


def test_a_process_that_refuses_a_record_is_reported_as_refusing(project):
    with following(project, 1) as (follower,):
        eventually(lambda: told(project))
        project.put("bad.test", BAD)
        eventually(lambda: told(project)[follower.pid]["refused"])
        code, said = status(project, *PATIENT)
        assert code == 2, said
        assert "a record is refused by" in said
        assert f"pid {follower.pid} " in said
        assert "bad.test@2" in said
        assert status(project, "--tenant", "a.test")[0] == 0
        assert status(project, "--tenant", "bad.test")[0] == 2
        project.put("bad.test", project.record("good.db"))
        code, said = status(project, *PATIENT)
        assert code == 0, said


def test_for_programs(project):
    with following(project, 1) as (follower,):
        eventually(lambda: [said["state"] for said in told(project).values()] == ["READY"])
        code, said = status(project, "--json")
        found = json.loads(said)
        assert (code, found["converged"], found["revision"]) == (0, True, 1)
        (process,) = found["processes"]
        assert (process["pid"], process["role"], process["state"], process["lagging"]) == (
            follower.pid,
            "web",
            "READY",
            False,
        )


def test_what_cannot_be_asked_for_is_named(project):
    assert status(project) == (0, "revision 1: no process follows the store\n")
    assert status(project, "--wait") == (1, "revision 1: no process follows the store\n")
    code, said = status(project, "--wait", "--json")
    assert (code, json.loads(said)["converged"]) == (1, False)
    code, said = status(project, "--revision", "9")
    assert (code, "nobody can have 9" in said) == (1, True)
    code, said = status(project, "--tenant", "nobody.test")
    assert (code, "has no tenant 'nobody.test'" in said) == (1, True)


def test_loading_waits_for_every_process(project, tmp_path):
    file = tmp_path / "more.json"
    section = {project.service: project.record("more.db")}
    file.write_text(json.dumps({"mapping_metadata": {}, "tenant_config": {"more.test": section}}))
    load = ["load_tenant_config", "-f", str(file), "--wait"]
    environment = {**os.environ, **project.environment}

    def in_vain():
        """Load while the second process stands still; returns whom it has waited for."""
        arguments = [*MANAGE, *load, "0.5"]
        done = subprocess.run(arguments, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 3, done.stdout + done.stderr
        return {one.pid for one in (first, second) if f"pid {one.pid} " in done.stderr}

    with following(project, 2) as (first, second):
        eventually(lambda: len(told(project)) == 2)
        assert "is live in all 2 processes" in project.manage(*load, "60")
        assert "more.test" in first.report()["tenants"]
        second.stop()
        section[project.service] = project.record("again.db")
        file.write_text(json.dumps({"mapping_metadata": {}, "tenant_config": {"more.test": section}}))
        assert second.pid in in_vain()
        head = project.store.head().rev
        eventually(lambda: told(project)[first.pid]["revision"] == head)  # it may have been late for that
        assert in_vain() == {second.pid}


# --- what a lease says ---


def a_member(**values):
    told = {
        "host": "h",
        "pid": 1,
        "role": "web",
        "version": "1",
        "epoch": "e",
        "revision": 5,
        "chain": "c",
        "state": "READY",
    }
    return Member(**{**told, "tenants": 1, "loaded": 1, "refused": 0, "refusals": {}, **values})


@pytest.mark.parametrize("value", ["", "no json", "[]", "{}", json.dumps({"pid": "x"})])
def test_a_lease_of_another_kind_is_left_out(value):
    assert member("uid", Lease(value, 0), 20) is None


def test_a_member_is_read_as_it_was_written():
    one = a_member(refused=2, refusals={"a.test": 4})
    assert member("uid", Lease(one.encoded(), 1.5), 20) == a_member(
        refused=2, refusals={"a.test": 4}, uid="uid", age=1.5
    )


def test_another_history_lags_whatever_its_revision():
    store = MemoryStore()
    store.lease("one", a_member(epoch="other", revision=99).encoded(), 60)
    assert standing(store, Head("e", 5, "")).lagging


def test_news_go_out_at_once_and_a_burst_of_them_once_a_second(monkeypatch):
    store, clock = MemoryStore(), [100.0]
    said = []
    store.lease = lambda *arguments: said.append(clock[0]) or 1
    reporter = Reporter(store, a_member, 45)
    monkeypatch.setattr("tenant_router.reactive.fleet.time.monotonic", lambda: clock[0])
    for _ in range(300):  # 30 seconds with a change every tenth
        reporter.news()
        reporter.tell()
        clock[0] += 0.1
    assert said[0] == 100.0
    assert 28 <= len(said) <= 31
    said.clear()
    for _ in range(600):  # a minute of silence
        reporter.tell()
        clock[0] += 0.1
    assert 3 <= len(said) <= 7


def test_a_process_that_leaves_while_it_reports_leaves_no_lease():
    store, entered, go_on = MemoryStore(), threading.Event(), threading.Event()
    take = store.lease

    def lease(name, value, seconds):
        if value:
            entered.set()
            assert go_on.wait(20)
        return take(name, value, seconds)

    store.lease = lease
    reporter = Reporter(store, a_member, 45)
    with ThreadPoolExecutor(2) as pool:
        telling = pool.submit(reporter.tell)
        assert entered.wait(20)
        leaving = pool.submit(reporter.leave)
        with suppress(FutureTimeout):
            leaving.result(0.1)  # done too early, if it does not wait
        go_on.set()
        telling.result(20), leaving.result(20)
    assert store.leases() == {}


@pytest.mark.parametrize(
    ("asked", "at", "refusals", "refused", "refuses"),
    [
        ([], 9, {}, 0, False),
        ([], 9, {"b": 3}, 1, True),
        (["a"], 9, {"b": 30}, 1, False),
        (["a"], 9, {"a": 9, "b": 30}, 21, True),
        (["a"], 9, {"b": 30, "c": 20}, 21, True),  # it may be one of the 19 that are not told
        (["a"], 9, {"b": 30, "c": 3}, 21, False),  # those that are not told are older
        (["a"], 9, {}, 1, True),
    ],
)
def test_a_refusal_that_is_not_told_is_no_convergence(asked, at, refusals, refused, refuses):
    store = MemoryStore()
    store.commit([Op(f"t{number}", ACTIVE, b"x") for number in range(at)], request_id="one")
    head = store.head()
    one = a_member(epoch=head.epoch, revision=at, chain=head.chain, refused=refused, refusals=refusals)
    store.lease("one", one.encoded(), 60)
    assert bool(standing(store, head, asked).refusing) is refuses


@pytest.mark.parametrize("value", ["", "{}", "[1]", "[" * 100_000, '{"host": "h"}'])
def test_a_lease_that_cannot_be_read_is_no_convergence(value):
    store = MemoryStore()
    store.commit([Op("a", ACTIVE, b"x")], request_id="one")
    head = store.head()
    store.lease("one", a_member(epoch=head.epoch, revision=1, chain=head.chain).encoded(), 60)
    assert standing(store, head).converged
    store.lease("two", value, 60)
    found = standing(store, head)
    assert (found.converged, found.settled, found.unreadable) == (False, False, ("two",))
    assert "1 processes whose leases" in behind(found)
    assert refusal_to_write(store) is None
    assert standing(store, head).unreadable == ("two",), "what asks whether reports are taken is no process"


def test_an_operator_who_asks_whether_reports_are_taken_is_no_process(monkeypatch):
    store, found, lease = MemoryStore(), [], MemoryStore.lease
    store.commit([Op("a", ACTIVE, b"x")], request_id="one")

    def look(self, name, value, seconds):
        count = lease(self, name, value, seconds)
        found.append(standing(store, store.head()))
        return count

    monkeypatch.setattr(MemoryStore, "lease", look)
    assert refusal_to_write(store) is None
    assert found
    assert all(one.converged for one in found)


@pytest.mark.parametrize("text", ["nan", "-1", "inf", "", "x", "1e400", "-0.1"])
@pytest.mark.parametrize("command", [["tenant_status", "--timeout"], ["load_tenant_config", "--wait"]])
def test_a_time_to_wait_is_a_number_that_ends(command, text):
    with pytest.raises(CommandError, match="is no number of seconds, 0 or more"):
        call_command(command[0], f"{command[1]}={text}")


@pytest.mark.parametrize("text", ["-5", "0", "1.5", "x", "", "\u00b2", "9" * 5000])
def test_a_revision_is_one_that_can_be(text):
    with pytest.raises(CommandError, match="argument --revision"):
        call_command("tenant_status", f"--revision={text}")


def test_what_others_call_themselves_moves_no_cursor():
    one = a_member(host="\x1b[2Jhost\n", role="web\r", state="\x07")
    found = Standing((one,), (one,), ())
    for line in (*table(found, Head("e", 1, "")), behind(found)):
        assert line.isprintable()
