"""The scheduler's own steps, in this process: what it does while the broker or the store is away."""

import signal
from datetime import datetime, timedelta, timezone

import pytest
from celery import Celery
from celery.beat import ScheduleEntry, Scheduler
from celery.schedules import crontab, schedule

from tenant_router.celery import beat, firings
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
    app = Celery("beats", broker="memory://")

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
    assert run(made)[-1] == beat.PAUSE
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


def test_a_store_without_claims_is_refused(scheduler, monkeypatch, caplog):
    made = scheduler(night=all_tenants())
    monkeypatch.setattr(MemoryStore, "keeps_claims", False)
    run(made)
    assert "MemoryStore keeps no claims, which beat needs" in caplog.text
    assert made.sent == []


def test_other_entries_have_their_turn_between_two_chunks(scheduler, monkeypatch):
    monkeypatch.setattr(beat, "CHUNK", 1)
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
    kind.app = Celery("beats", broker="memory://")
    names = set()
    for last in (one, other):
        entry = ScheduleEntry("night", "task", datetime.fromisoformat(f"2031-01-01T{last}+00:00"), schedule=kind)
        names.add(firings.fired(entry).name)
    assert (len(names) == 1) is same


def test_a_signal_waits_until_a_task_is_sent():
    steps = []

    def end(number, frame):
        raise SystemExit

    def send():
        with beat._undisturbed():
            signal.raise_signal(signal.SIGTERM)
            steps.append("sent")

    before = signal.signal(signal.SIGTERM, end)
    try:
        with pytest.raises(SystemExit):
            send()
        assert steps == ["sent"]
        assert signal.getsignal(signal.SIGTERM) is end
    finally:
        signal.signal(signal.SIGTERM, before)
