"""After an outage, however long, a process is back at once; a burst is applied at once; a full store costs nothing."""

import logging
import os
import time
from collections import Counter
from contextlib import closing

import pytest

from tenant_router.config_store.base import DELETED, Head, Op
from tenant_router.context_decorators import tenant_context_bind
from tenant_router.exceptions import StoreUnavailable
from tenant_router.reactive import reflector as reflector_module
from tenant_router.reactive.fleet import standing
from tenant_router.reactive.last_good import LastGood
from tenant_router.reactive.reflector import READY, SHRUNK, STALE
from tests.faults.followers import following, options
from tests.faults.readers import Reader, Writers
from tests.faults.test_fleet import a_member, status, told
from tests.proxy import Proxy
from tests.tenants import eventually

KEY = "x4mfi7QDW5nYh2vLbHYI1mAwbwpIK0b9m2pSe4bQ8dE="  # of these tests' files alone


def name_of(tenant_id):
    with tenant_context_bind(tenant_id) as context:
        return context.parts["django_orm"]["default"].settings["NAME"].rpartition("/")[2]


def quickest(measure, limit, times=4):
    """Whether it takes less than ``limit`` seconds once, as the machine may stand still at any time."""
    took = []
    while len(took) < times and (not took or took[-1] >= limit):
        took.append(measure())
    print(f"{min(took):.2f} s")
    return took[-1] < limit


# --- back at once ---


class Attempts:
    """The moments at which a reflector asks a store that is away."""

    def __init__(self, reader, monkeypatch):
        self.clock, self.moments = 1000.0, []
        monkeypatch.setattr(reflector_module.time, "monotonic", lambda: self.clock)
        reader.reflector._stopping = self
        reader.store.head = reader.store._announced = self._away

    def _away(self, *arguments):
        self.moments.append(self.clock)
        raise StoreUnavailable("away")

    def is_set(self):
        return False

    def wait(self, seconds):
        self.clock += seconds


def test_attempts_are_at_most_a_second_apart_however_long_it_takes(monkeypatch):
    writers = Writers()
    writers.put("a", 1)
    reader = Reader(writers.store)
    reader.step()
    attempts = Attempts(reader, monkeypatch)
    while attempts.clock < 5000:
        reader.step()
    pauses = [later - earlier for earlier, later in zip(attempts.moments, attempts.moments[1:], strict=False)]
    assert max(pauses) <= 1.0
    assert 0.6 < sum(pauses[20:]) / len(pauses[20:]) < 0.9, "and not many more than one"
    assert len({round(pause, 3) for pause in pauses}) > 100, "the processes of a fleet do not march in step"


def test_a_process_is_ready_soon_after_the_store_is_back(project, own_redis, runtime_on):
    made = runtime_on(project)
    made.serve("web")

    def outage():
        own_redis.kill()
        eventually(lambda: made.reflector.state == STALE)
        eventually(lambda: made.reflector._failures > 8)  # the pauses are as long as they get
        own_redis.start()
        began = time.monotonic()
        eventually(lambda: made.reflector.state == READY)
        return time.monotonic() - began

    assert quickest(outage, 1.5)
    assert made.reflector.syncs == 1, "the log sufficed"


def test_a_link_that_swallows_everything_is_tried_anew(project, own_redis, runtime_on):
    """Who waits for an answer that never comes hears of the link's return when it asks again."""
    with closing(Proxy(own_redis.port)) as proxy:
        project.url = f"redis://127.0.0.1:{proxy.port}/0"
        made = runtime_on(project)
        made.serve("web")

        def cut_off():
            eventually(lambda: made.reflector.state == READY)
            proxy.blackhole()
            eventually(lambda: made.reflector.state == STALE)
            eventually(lambda: made.reflector._failures > 4)
            proxy.go_on()
            began = time.monotonic()
            eventually(lambda: made.reflector.state == READY)
            return time.monotonic() - began

        assert quickest(cut_off, 1.5)


def test_the_end_of_a_long_outage_is_no_time_to_read_the_index():
    writers = Writers()
    writers.put("a", 1)
    reader = Reader(writers.store, resync=600.0)
    reader.step()
    reader.reflector._failed(StoreUnavailable("away"))
    reader.reflector._resync_at = 0.0  # it came due meanwhile, for everybody
    reader.step(3)
    assert reader.reflector.syncs == 1
    assert reader.reflector._resync_at < time.monotonic() + 600 * 0.2


def test_a_store_that_was_emptied_and_loaded_again(project, own_redis, runtime_on, caplog):
    made = runtime_on(project)
    made.serve("web")

    def emptied():
        own_redis.client().flushall()
        eventually(lambda: made.reflector.state == SHRUNK)
        assert made.reflector.since_contact < 5, "it answers, though it has nothing"
        name = f"{time.monotonic()}.db"
        project.put("a.test", project.record(name))
        began = time.monotonic()
        eventually(lambda: made.reflector.state == READY)
        took = time.monotonic() - began
        assert name_of("a.test") == name
        return took

    assert quickest(emptied, 1.5)
    told = [record for record in caplog.records if "is empty; the 1 tenants that it had are kept" in record.message]
    assert {record.levelno for record in told} == {logging.CRITICAL}


def test_whole_reads_are_spread_over_the_fleet(caplog):
    """Each process waits for a moment of its own within a time that follows from their number."""
    writers, turns = Writers(), []
    writers.put("a", 1)
    reader = Reader(writers.store)
    reader.step()
    reader.reflector.reporter.fleet = 1000

    class Waiting:
        def is_set(self):
            return False

        def wait(self, seconds):
            turns.append(seconds)

    reader.reflector._stopping = Waiting()
    with caplog.at_level(logging.INFO):
        for _ in range(200):
            writers.put("a", 2)
            writers.put("a", 3)
            writers.trim(0)
            syncs = reader.reflector.syncs
            reader.step(2)
            assert reader.reflector.syncs == syncs + 1, "a trimmed log costs one read"
    assert len(turns) == 200
    assert 15 < max(turns) <= 20
    assert min(turns) < 5
    assert "1000 processes take turns" in caplog.text


def test_the_number_of_processes_is_told_with_each_report(project):
    with following(project, 3, TESTS_IDLE="0.3", **options(STATUS_TTL=3)) as followers:
        eventually(lambda: told(project).keys() == {follower.pid for follower in followers})
        client = project.store._client
        project.commit(*(Op(f"t{number}.test", DELETED) for number in range(50)))
        client.xtrim(f"{{tr:{project.service}}}:log", maxlen=1, approximate=False)
        for follower in followers:
            follower.process.wait_for("reading the index", times=0)
        eventually(lambda: all(told(project)[one.pid]["revision"] == 51 for one in followers))


# --- a burst ---


def test_5000_changes_in_one_commit_are_applied_at_once(project, runtime_on):
    made = runtime_on(project, EAGER_MAX=0)
    made.serve("web")
    eventually(lambda: made.reflector.state == READY)

    def burst():
        revision = project.commit(*(Op(f"t{number}.test", "S", b"x") for number in range(5_000)))
        began = time.monotonic()
        while made.reflector.head.rev < revision:
            time.sleep(0.005)
        return time.monotonic() - began

    logging.getLogger("tenant_router").setLevel(logging.WARNING)
    try:
        assert quickest(burst, 0.8)  # with pauses it takes 1.85
    finally:
        logging.getLogger("tenant_router").setLevel(logging.NOTSET)


def test_full_reads_are_not_paced_and_small_ones_are():
    writers, pauses = Writers(), []
    writers.put("a", 1)
    reader = Reader(writers.store)
    reader.step()

    class Waiting:
        def is_set(self):
            return False

        def wait(self, seconds):
            pauses.append(seconds)

    reader.reflector._stopping = Waiting()
    writers.commit(*(Op(f"t{number}", DELETED) for number in range(2_000)))
    reader.step(4)
    assert reader.reflector.head.rev == 2_001
    assert pauses == []
    for _number in range(5):
        writers.commit(Op("a", DELETED), Op("b", DELETED))
        reader.step()
    assert len(pauses) >= 4


# --- a store that takes no writes ---


def fill(client):
    client.config_set("maxmemory", "1")


def replicate(client):
    client.replicaof("127.0.0.1", 1)
    client.config_set("replica-serve-stale-data", "yes")


@pytest.mark.parametrize("fault", [fill, replicate], ids=lambda fault: fault.__name__)
def test_a_store_that_refuses_writes_costs_no_more_than_another(
    project, own_redis, runtime_on, tmp_path, caplog, fault
):
    kept = tmp_path / "kept"
    made = runtime_on(project, LAST_GOOD=str(kept), KEYS=[KEY], STATUS_TTL=3)
    made.serve("web")
    eventually(lambda: os.getpid() in told(project))
    fault(own_redis.client())
    caplog.clear()
    client = own_redis.client()
    eventually(lambda: "left out of the fleet's status" in caplog.text)
    made.last_good._written, made.last_good._next = None, 0.0
    kept.unlink()
    client.config_resetstat()
    time.sleep(2)
    ran = Counter({name: found["calls"] for name, found in client.info("commandstats").items()})
    assert ran["cmdstat_evalsha"] + ran["cmdstat_eval"] <= 2 * 2 / 0.6 + 2, "a report each 0.7 to 1 s, as always"
    assert sum(ran.values()) < 60
    assert made.reflector.state == READY
    assert made.reflector.failures == 0
    assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) == 1
    eventually(lambda: kept.exists() and kept.stat().st_size)
    _code, said = status(project)
    assert "the store takes no reports" in said


# --- shrinking ---


@pytest.mark.parametrize(
    ("held", "left", "refused"),
    [
        (9, 1, True),
        (9, 7, True),
        (9, 8, False),
        (2, 1, False),
        (1, 0, True),
        (3, 1, True),
        (40, 32, False),
        (40, 31, True),
    ],
)
def test_how_many_may_vanish(held, left, refused, caplog):
    writers = Writers()
    for number in range(held):
        writers.put(f"t{number}", number)
    reader = Reader(writers.store)
    reader.step()
    writers.delete("other")
    writers.lose([f"t{number}" for number in range(left, held)])
    reader.step()
    reader.reflector._resync_at = reader.reflector._contact = 0.0
    reader.step()
    assert (reader.reflector.state == SHRUNK, len(reader.serves())) == (refused, held if refused else left)
    assert reader.reflector.shrinking.refusals == refused
    assert reader.reflector.since_contact < 60
    assert ("CRITICAL" in caplog.text) is refused


def test_a_refused_index_is_not_read_again_and_again():
    writers = Writers()
    for number in range(9):
        writers.put(f"t{number}", number)
    reader = Reader(writers.store)
    reader.step()
    writers.store.clear()
    writers.put("t0", 0)
    reads, index = [], writers.store.index
    writers.store.index = lambda: reads.append(1) or index()
    reader.step(50)
    assert len(reads) == 1
    assert len(reader.serves()) == 9
    for number in range(1, 9):
        writers.put(f"t{number}", number)
    reader.step(2)
    assert len(reads) == 2
    assert reader.reflector.refuses is False


def test_what_was_lost_is_loaded_from_the_last_good_file(project, own_redis, runtime_on, tmp_path):
    """A tenant that the store has lost, and that this process has not used before, is one that is kept."""
    for number in range(9):
        project.put(f"t{number}.test", project.record(f"t{number}.db"))
    made = runtime_on(project, EAGER_MAX=0, LAST_GOOD=str(tmp_path / "kept"), KEYS=[KEY])
    made.serve("web")
    eventually(lambda: made.last_good._written)
    own_redis.client().flushall()
    project.put("t0.test", project.record("t0.db"))
    eventually(lambda: made.reflector.state == SHRUNK)
    assert name_of("t7.test") == "t7.db"
    made.last_good._next = 0.0
    file = LastGood(str(tmp_path / "kept"), project.service, [KEY], 1000)
    assert len(file.index()[2]) == 10


# --- restores ---


def test_a_number_of_another_history_is_not_the_revision(project):
    """A restored store is at 3 again, and so a process is that has not noticed yet."""
    for number in range(2):
        project.put("a.test", project.record(f"{number}.db"))
    head, store = project.store.head(), project.store

    def lags(target, **said):
        store.lease("one", a_member(epoch=head.epoch, **said).encoded(), 60)
        return bool(standing(store, target).lagging)

    for revision in (head.rev, head.rev + 5):
        assert lags(head, revision=revision, chain="0" * 40)
        assert lags(Head(head.epoch, 1, ""), revision=revision, chain="0" * 40)
    assert not lags(head, revision=head.rev, chain=head.chain)
    assert not lags(Head(head.epoch, 1, ""), revision=head.rev, chain=head.chain)
    project.put("b.test", project.record("b.db"))
    assert not lags(Head(head.epoch, 2, ""), revision=head.rev, chain=head.chain), "by the log, which has that chain"
    assert lags(store.head(), revision=head.rev, chain=head.chain)
    store.lease("one", a_member(epoch=head.epoch, revision=9, chain="0" * 40).encoded(), 60)
    assert status(project, "--wait", "--timeout", "0.1")[0] == 1


def test_waiting_for_nobody_is_no_success(project):
    code, said = status(project, "--wait", "--timeout", "0.2")
    assert (code, "no process follows the store" in said) == (1, True)


def test_a_process_says_nothing_of_a_history_that_it_left():
    writers = Writers()
    writers.put("a", 1)
    saved = writers.snapshot()
    writers.put("a", 2)
    reader = Reader(writers.store)
    reader.step()
    writers.roll_back(saved)
    writers.put("a", 3)
    writers.store.index = lambda: (_ for _ in ()).throw(StoreUnavailable("in the middle of it"))
    reader.step(2)
    assert reader.reflector.head is None
    assert not reader.reflector.ready
    del writers.store.index
    reader.step(1)
    assert reader.reflector.head == writers.store.head()
