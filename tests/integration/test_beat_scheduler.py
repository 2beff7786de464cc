"""The scheduler's own steps, in this process: what it does while the broker or the store is away."""

import signal
import time
from datetime import datetime, timedelta, timezone

import pytest
from celery import Celery
from celery.beat import ScheduleEntry, Scheduler
from celery.schedules import crontab, schedule

from tenant_router.celery import beat, fan_out
from tenant_router.config_store.backends.memory import MemoryStore
from tenant_router.exceptions import StoreUnavailable


class Recording(beat.TenantFanOut, Scheduler):
    """Notes what it would send; fails while ``broken`` says so."""

    broken = False
    producer = None

    def __init__(self, *args, **kwargs):
        self.sent = []
        super().__init__(*args, **kwargs)

    def send_task(self, name, args=None, kwargs=None, **options):
        if self.broken:
            raise ConnectionError("the broker is away")
        self.sent.append((name, options["headers"].get("tenant_id"), options))


@pytest.fixture
def scheduler(tenants):
    """A function that makes a scheduler with these entries, of which all are due."""
    for number in range(3):
        tenants.put(f"t{number}.test")
        tenants.arrived(f"t{number}.test")
    app = Celery("beats", broker="memory://", set_as_current=False)

    def make(**entries):
        made = Recording(app, schedule={})
        for name, entry in entries.items():
            made.add(name=name, task=name, last_run_at=datetime.now(timezone.utc) - timedelta(hours=1), **entry)
        return made

    return make


def all_tenants(**options):
    return {"schedule": schedule(600), "options": {"headers": {"tenant_scope": "all"}, **options}}


def run(scheduler, ticks=5):
    return [scheduler.tick() for _ in range(ticks)]


def test_nothing_is_lost_while_the_broker_is_away(scheduler, caplog):
    made = scheduler(night=all_tenants(), central={"schedule": schedule(600)})
    made.broken = True
    assert run(made)[-1] == beat.RETRY_INTERVAL
    assert caplog.text.count("sending is delayed") == 1
    made.broken = False
    made.add(name="later", task="later", schedule=schedule(600), last_run_at=datetime.now(timezone.utc) - timedelta(1))
    run(made)
    assert sorted(tenant_id for name, tenant_id, _ in made.sent if name == "night") == ["t0.test", "t1.test", "t2.test"]
    assert [name for name, tenant_id, _ in made.sent if tenant_id is None] == ["later"]


def test_nothing_is_lost_while_the_store_is_away(scheduler, monkeypatch):
    made = scheduler(night=all_tenants(), central={"schedule": schedule(600)})

    def fail(*args):
        raise StoreUnavailable("the store is away")

    with monkeypatch.context() as patched:
        patched.setattr(MemoryStore, "claim", fail)
        run(made)
        assert [name for name, *_ in made.sent] == ["central"]
    run(made)
    assert sorted(str(tenant_id) for _, tenant_id, _ in made.sent) == ["None", "t0.test", "t1.test", "t2.test"]


def test_a_claim_whose_answer_was_lost_is_made_again(scheduler, monkeypatch):
    """The store has it; without its task the tenant would have none."""
    made, answers = scheduler(night=all_tenants()), []
    claim = MemoryStore.claim

    def lose(self, name, *args):
        answer = claim(self, name, *args)
        answers.append(name)
        if len(answers) in (3, 4):
            raise StoreUnavailable("the answer was lost")
        return answer

    monkeypatch.setattr(MemoryStore, "claim", lose)
    run(made, 8)
    assert sorted(tenant_id for _, tenant_id, _ in made.sent) == ["t0.test", "t1.test", "t2.test"]


def test_another_beat_is_not_taken_for_the_own_one(scheduler):
    one, two = (scheduler(night=all_tenants()) for _ in range(2))
    for made in (one, two):
        run(made)
    assert (len(one.sent), len(two.sent)) == (3, 0)


@pytest.mark.parametrize("kind", [crontab(minute="30"), schedule(600)])
def test_a_standstill_while_the_clock_is_read_moves_no_firing(kind, monkeypatch):
    """``due`` is now and what remains, each by a clock of its own."""
    kind.app = Celery("beats", broker="memory://", set_as_current=False)
    entry = ScheduleEntry("night", "task", datetime.now(timezone.utc) - timedelta(hours=2), schedule=kind)
    before, stood_still = fan_out.scheduled_run(entry), []
    remaining = fan_out._remaining

    def stand_still(*args):
        found = remaining(*args)
        if not stood_still:
            stood_still.append(True)
            time.sleep(1.1)
            return remaining(*args)
        return found

    monkeypatch.setattr(fan_out, "_remaining", stand_still)
    after = fan_out.scheduled_run(entry)
    assert abs(after.due - before.due) < timedelta(seconds=0.5)
    assert after.name == before.name


def test_a_store_without_claims_is_refused(scheduler, monkeypatch, caplog):
    made = scheduler(night=all_tenants())
    monkeypatch.setattr(MemoryStore, "keeps_claims", False)
    run(made)
    assert "MemoryStore keeps no claims, which beat needs" in caplog.text
    assert made.sent == []


def test_other_entries_have_their_turn_between_two_chunks(scheduler, monkeypatch):
    monkeypatch.setattr(beat, "CHUNK_SIZE", 1)
    made = scheduler(night=all_tenants(), central={"schedule": schedule(600)})
    run(made, 10)
    names = [name for name, *_ in made.sent]
    assert sorted(names) == ["central", "night", "night", "night"]
    assert names.index("central") < 3


def test_a_task_expires_as_long_after_its_own_start_as_the_entry_says(scheduler):
    made = scheduler(night=all_tenants(expires=30))
    run(made)
    assert len(made.sent) == 3
    for _, _, options in made.sent:
        assert options["expires"] == 30 + options["countdown"]
        assert 0 <= options["countdown"] <= 60
        assert "tenant_scope" not in options["headers"]


def test_the_entry_itself_is_left_as_it_is(scheduler):
    made = scheduler(night=all_tenants())
    run(made)
    assert made.schedule["night"].options == {"headers": {"tenant_scope": "all"}}


@pytest.mark.parametrize(
    ("kind", "one", "other", "same"),
    [
        (crontab(minute="30"), "12:00:01", "12:29:59", True),
        (crontab(minute="30"), "12:00:01", "12:30:01", False),
        (schedule(600), "12:02:00", "12:07:59", True),
        (schedule(600), "12:02:00", "12:12:00", False),
    ],
)
def test_what_two_beats_take_for_the_same_firing(kind, one, other, same):
    kind.app = Celery("beats", broker="memory://", set_as_current=False)
    names = set()
    for last in (one, other):
        entry = ScheduleEntry("night", "task", datetime.fromisoformat(f"2031-01-01T{last}+00:00"), schedule=kind)
        names.add(fan_out.scheduled_run(entry).name)
    assert (len(names) == 1) is same


@pytest.fixture
def ended():
    """The signals whose handler has run; like Celery's, it ends beat by an exception."""
    numbers = []

    def end(number, frame):
        numbers.append(number)
        raise SystemExit

    before = signal.signal(signal.SIGTERM, end)
    yield numbers
    handler = signal.signal(signal.SIGTERM, before)
    assert handler is end, "the scheduler left its own handler"


def test_a_signal_waits_until_a_task_is_sent(scheduler, ended):
    """And no other task is sent after it: the next beat goes on with the firing."""
    made = scheduler(night=all_tenants())
    made.tick()
    send = made.send_task

    def interrupted(*args, **kwargs):
        if not made.sent:
            signal.raise_signal(signal.SIGTERM)
            assert ended == []
        send(*args, **kwargs)

    made.send_task = interrupted
    with pytest.raises(SystemExit):
        made.tick()
    assert (len(made.sent), ended) == (1, [signal.SIGTERM])


def test_a_signal_is_not_lost_when_a_tick_fails(scheduler, ended, monkeypatch):
    made = scheduler()

    def fail():
        signal.raise_signal(signal.SIGTERM)
        raise ConnectionError("the broker is away")

    monkeypatch.setattr(made, "populate_heap", fail)
    with pytest.raises(SystemExit):
        made.tick()
    assert ended == [signal.SIGTERM]


def test_a_second_signal_does_not_wait(scheduler, ended):
    """For a tick that hangs."""
    made = scheduler(night=all_tenants())
    made.tick()
    waits = []

    def hang(*args, **kwargs):
        signal.raise_signal(signal.SIGTERM)
        waits.append("after the first")
        signal.raise_signal(signal.SIGTERM)
        waits.append("after the second")

    made.send_task = hang
    with pytest.raises(SystemExit):
        made.tick()
    assert (waits, ended) == (["after the first"], [signal.SIGTERM])
