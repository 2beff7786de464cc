"""Celery beat with tenants: real beats, a real broker; each tenant has one task per firing."""

import base64
import json
import re
import signal
import sqlite3
import time
from collections import Counter, defaultdict
from contextlib import ExitStack, closing
from datetime import datetime, timedelta

import pytest
import redis
from celery.beat import PersistentScheduler

from tenant_router.celery.beat import TenantFanOut
from tenant_router.config_store import codec
from tenant_router.config_store.base import SUSPENDED, Op
from tenant_router.config_store.serializers.json import JSONSerializer
from tests.processes import Project
from tests.tenants import eventually

BEAT = ["-m", "celery", "-A", "tests.app", "beat", "-l", "INFO", "--pidfile", ""]
WORKER = ["-m", "celery", "-A", "tests.app", "worker", "-P", "threads", "-c", "4", "-l", "INFO"]
TASK = "tests.app.worker_tasks.where"
FEW = 20  # of 1000 tasks: each standstill between two looks at the clock moves one task


class SlowAfterSome(PersistentScheduler):
    """Sends some tasks at once, and all others so slowly that a test can end it in between."""

    sent = 0

    def apply_async(self, *args, **kwargs):
        self.sent += 1
        time.sleep(0 if self.sent < 100 else 0.05)
        return super().apply_async(*args, **kwargs)


class SlowScheduler(TenantFanOut, SlowAfterSome):
    """``TESTS_SCHEDULER`` of a beat whose fan-out takes a minute."""


def entry(scope, every=3600.0, **headers):
    options = {"headers": {"tenant_scope": scope, **headers}}
    return {"task": TASK, "schedule": every, "options": options}


class Beats(Project):
    """A project whose beats have a schedule; what they have sent lies in the broker."""

    def schedule(self, **entries):
        self.environment["TESTS_BEAT"] = json.dumps(entries)

    def beat(self, file="schedule", **environment):
        return self.start(*BEAT, "-s", str(self.directory / file), **environment)

    def put_many(self, tenant_ids, **extra):
        record = self.record("unused.db", **extra)
        self.commit(*(Op(one, "A", codec.encode(one, record, JSONSerializer())) for one in tenant_ids))

    @property
    def queue(self):
        return redis.Redis.from_url(self.url, db=1)

    def length(self):
        return self.queue.llen(self.service)

    def sent(self):
        """The headers of all tasks that were sent, by firing."""
        found = defaultdict(list)
        for raw in self.queue.lrange(self.service, 0, -1):
            message = json.loads(raw)
            assert base64.b64decode(message["body"])
            found[message["headers"].get("tenant_firing")].append(message["headers"])
        return found

    def finished(self):
        """The same of the firings that are over: beats may end in the middle of one, and leave it to the next beat."""
        # Asked before the tasks are read: of what is over then, all tasks are there.
        over = {name for name in self.sent() if name is None or self.store.claimed(f"beat:{name}:done")}
        return {name: sent for name, sent in self.sent().items() if name in over}

    def rounds(self):
        """Who had a task, in each of the firings that are over, in their order."""
        return [{headers["tenant_id"] for headers in sent} for _, sent in sorted(self.finished().items())]


@pytest.fixture
def project(redis_server, tmp_path):
    return Beats(redis_server, tmp_path, DJANGO_SETTINGS_MODULE="tests.settings_beat")


def tenants(count):
    return [f"t{number}.test" for number in range(count)]


def test_two_beats_fire_once(project):
    project.put_many(tenants(1000))
    project.schedule(night=entry("all", 4.0))
    with project.beat("one") as one, project.beat("two") as two:
        for process in (one, two):
            process.wait_for("night due at", times=2, timeout=60)
        for process in (one, two):
            process.terminate()
    firings = project.finished()
    assert len(firings) >= 2
    for sent in firings.values():
        assert Counter(headers["tenant_id"] for headers in sent) == Counter(tenants(1000))


def test_each_tenant_has_its_own_place_in_the_spread(project):
    """The same at each firing, and all of the spread is used."""
    project.put_many(tenants(1000))
    project.schedule(night=entry("all", 4.0, tenant_spread=60))
    with project.beat() as beat:
        beat.wait_for("night due at", times=2, timeout=60)
        beat.terminate()
        due = [datetime.fromisoformat(found) for found in re.findall(r"night due at (\S+): 1000 tenants", beat.log)]
    places, firings = defaultdict(list), project.finished()
    for begun in due:
        (name,) = [name for name in firings if begun - timedelta(seconds=4) < slot(name) <= begun]
        etas = {one["tenant_id"]: datetime.fromisoformat(one["eta"]) for one in firings[name] if one["eta"]}
        found = {tenant_id: (eta - begun).total_seconds() for tenant_id, eta in etas.items()}
        for tenant_id, place in found.items():
            places[tenant_id].append(place)
        passed = len(firings[name]) - len(found)  # on a busy machine, the first places have passed: these have no eta
        assert max(found.values()) > 59, name
        assert sum(place > 61 for place in found.values()) <= FEW, name
        for quarter in (1, 2, 3):
            earlier = passed + sum(place < 15 * quarter for place in found.values())
            assert abs(earlier - 250 * quarter) < 50 or min(found.values()) > 15 * quarter, name
    assert max(map(len, places.values())) >= 2
    assert sum(max(found) - min(found) >= 1 for found in places.values()) <= FEW


def slot(name):
    """Where the period begins of which a firing is named."""
    return datetime.fromisoformat(name.partition("@")[2])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_restart_in_the_middle_of_a_fan_out(project, number):
    project.put_many(tenants(1500))
    project.schedule(night=entry("all", 3.0))
    with project.beat(TESTS_SCHEDULER="tests.integration.test_beat:SlowScheduler") as beat:
        eventually(lambda: project.length() > 50, 60)
        beat._popen.send_signal(number)
        beat.wait_ended()
    before = project.length()
    assert before < 1400, "it was killed too late to say anything"
    (name,) = project.sent()
    with project.beat() as beat:
        beat.wait_for("night due at", times=1, timeout=60)
        beat.terminate()
    again = Counter(headers["tenant_id"] for headers in project.sent()[name])
    assert set(again.values()) == {1}
    # SIGKILL may come between the claim and the sending of one task, which then is lost and never doubled
    assert len(again) >= 1500 - (number == signal.SIGKILL)


def test_tenants_come_and_go_between_two_firings(project):
    project.put_many(["a.test", "b.test"])
    project.schedule(often=entry("all", 2.0))
    with project.beat() as beat:
        beat.wait_for("often due at", times=1)
        project.put_many(["c.test"])
        project.delete("a.test")
        eventually(lambda: project.rounds()[-1] == {"b.test", "c.test"}, 60)
        beat.terminate()
    found = project.rounds()
    assert (found[0], found[-1]) == ({"a.test", "b.test"}, {"b.test", "c.test"})


def test_scopes_and_what_the_summary_says_of_them(project):
    project.put_many(["a.test", "b.test"], labels=["gold", "europe"])
    project.put_many(["c.test"], labels=["silver"])
    record = codec.encode("s.test", project.record("unused.db", labels=["gold"]), JSONSerializer())
    project.commit(Op("s.test", SUSPENDED, record))
    central = {"task": "tests.app.worker_tasks.bound_tenants", "schedule": 1.0}
    project.schedule(
        gold=entry("label:gold", 1.0),
        nobody=entry("label:bronze", 1.0),
        named=entry(["a.test", "s.test", "x.test"], 1.0),
        own={"task": TASK, "schedule": 1.0, "options": {"headers": {"tenant_id": "c.test"}}},
        wrong=entry("everybody", 1.0),
        central=central,
    )
    with project.beat() as beat:
        for name in ("gold", "nobody", "named", "own", "wrong"):
            beat.wait_for(f"beat: {name} due at")
        beat.wait_for("Sending due task central", times=2)
        beat.terminate()
        log = beat.log
    found = defaultdict(set)
    for name, sent in project.sent().items():
        found[(name or "@").partition("@")[0]] |= {headers.get("tenant_id") for headers in sent}
    assert found == {"gold": {"a.test", "b.test"}, "named": {"a.test"}, "own": {"c.test"}, "": {None}}
    lines = {
        name: line
        for line in log.splitlines()
        for name in ("gold", "nobody", "named", "wrong")
        if f" {name} due" in line
    }
    assert "INFO" in lines["gold"]
    assert "2 tenants, 2 tasks sent, 0 had been sent before" in lines["gold"]
    assert "WARNING" in lines["nobody"]
    assert "the scope 'label:bronze' matches no active tenant" in lines["nobody"]
    assert "tenant 's.test' is suspended and has no task; tenant 'x.test' is unknown and has no task" in lines["named"]
    assert "the scope 'everybody' is neither 'all', 'label:NAME' nor a list of tenant ids" in lines["wrong"]


def test_a_task_of_beat_runs_as_its_tenant(project, sqlite_file):
    databases = {one: sqlite_file(one) for one in ("a.test", "b.test")}
    for tenant_id, database in databases.items():
        project.put(tenant_id, project.record(database))
    project.schedule(often={**entry("all", 2.0), "task": "tests.app.worker_tasks.write", "args": ["by beat"]})
    with ExitStack() as stack:
        worker = stack.enter_context(project.start(*WORKER))
        worker.wait_for("ready.")
        beat = stack.enter_context(project.beat())
        beat.wait_for("often due at")
        beat.terminate()
        firings = beat.log.count("often due at")
        eventually(lambda: all(len(notes(database)) >= firings for database in databases.values()), 60)
        worker.terminate()
    for database in databases.values():
        assert set(notes(database)) == {"by beat"}
        assert len(notes(database)) - firings in (0, 1)  # one more if beat ended in the middle of a firing


def notes(database):
    with closing(sqlite3.connect(database, timeout=20)) as connection:
        return [text for (text,) in connection.execute("SELECT text FROM app_note")]


ROWS = """
from django_celery_beat.models import IntervalSchedule, PeriodicTask
every, _ = IntervalSchedule.objects.get_or_create(every=2, period="seconds")
for name, headers in (("all", '{"tenant_scope": "all"}'), ("own", '{"tenant_id": "b.test"}'), ("central", "{}")):
    PeriodicTask.objects.create(name=name, task="tests.app.worker_tasks.where", interval=every, headers=headers)
"""


def test_rows_of_django_celery_beat(project):
    """One row for all tenants, one for a single tenant, and one that is central."""
    project.put_many(["a.test", "b.test"])
    project.environment |= {
        "TESTS_SCHEDULER": "tenant_router.celery.database_beat:TenantDatabaseScheduler",
        "TESTS_CENTRAL": str(project.directory / "central.db"),
    }
    project.manage("check")
    project.manage("migrate", "--database", "central")
    project.manage("shell", "-v", "0", "-c", ROWS)
    with project.beat() as beat:
        for text in ("beat: all due at", "beat: own due at", "Sending due task central"):
            beat.wait_for(text, times=2)
        beat.terminate()
        assert "Traceback" not in beat.log
    firings = defaultdict(list)
    for name, sent in project.finished().items():
        firings[(name or "@").partition("@")[0]].append(sorted(str(headers.get("tenant_id")) for headers in sent))
    assert len(firings["all"]) >= 2
    assert all(sent == ["a.test", "b.test"] for sent in firings["all"])
    assert all(sent == ["b.test"] for sent in firings["own"])
    assert set(firings[""][0]) == {"None"}
