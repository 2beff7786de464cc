"""First use, change, look-up, resync, restore and fork in every order: what is served is what the store has."""

import logging
from contextlib import suppress

import pytest

from tenant_router.exceptions import StoreError, TenantUnresolved
from tenant_router.managers import registry as registry_module
from tenant_router.reactive import publishing, reflector
from tenant_router.reactive.records import Records
from tests.faults.interleaving import Schedule, SteppedLock, SteppedStore, each, schedules, steps
from tests.faults.readers import Reader, Writers

MOST = 300  # schedules of each story


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(reflector, "PACE_MAX", 0.0)
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


class Story:
    """A process that has read a store with the tenant ``a``, and actors that go on from there."""

    def __init__(self, schedule, eager_max):
        self.schedule, self.children = schedule, []
        self.used, self.restored = set(), False
        self.store = SteppedStore()
        self.store.schedule = schedule
        self.writers = Writers(self.store)
        self.writers.put("a", 1)
        self.reader = Reader(self.store, eager_max)
        self.reader.step()
        self.pipeline = self.reader.pipeline
        self.lock = self.pipeline._lock = SteppedLock(schedule)
        self.records = Records(self.store, self.pipeline, self.reader.reflector, None)

    def reads(self, times):
        self.schedule.add(steps(times, self.reader.step))

    def resyncs(self):
        def resync():
            self.reader.reflector._resync_at = 0.0
            self.reader.step()

        self.schedule.add(resync)

    def writes(self, *acts):
        self.schedule.add(each(self.schedule, list(acts)))

    def uses(self, tenant_id="a"):
        def use():
            with suppress(StoreError, TenantUnresolved):  # it is between two records: 503 for a moment
                self.pipeline.load(tenant_id, self.store.get_many)

        self.schedule.add(use)

    def looks_up(self, tenant_id):
        self.schedule.add(lambda: self.records.refresh(tenant_id))

    def forks(self, *, still):
        """With ``still`` when nobody publishes, as the hook before a fork has it; else when that took too long."""

        def fork():
            steps(8, self.schedule.point)()  # it has as many chances as the others
            if still:
                with self.lock:
                    self.children.append(self._child(still))
            else:
                self.children.append(self._child(still))

        self.schedule.add(fork)

    def _child(self, still):
        child = Reader(self.store, self.pipeline.eager_max)
        for name in ("index", "prepared", "refusals"):
            setattr(child.registry, name, getattr(self.reader.registry, name).copy())
        child.pipeline._held, child.pipeline.live = self.pipeline._held.copy(), self.pipeline.live
        child.reflector.head, child.reflector.synchronised = self.reader.reflector.head, True
        if not still:
            child.pipeline.reset_after_fork()
        return child

    def look(self):
        """Between any two pieces of work, whoever interrupted whom."""
        if self.lock.free:
            assert self.pipeline.inconsistent() == []
            assert self.pipeline.live == len(self.reader.registry.get_known_ids())
            prepared = set(self.reader.registry.prepared)
            lost = {t for t in self.used - prepared if self.reader.registry.index.get(t, ":X:").split(":")[1] != "X"}
            assert self.restored or not lost, "it was served, and would have to be loaded again"
            self.used |= prepared

    def ends_well(self):
        truth = self.writers.truth()
        for reader in (self.reader, *self.children):
            assert reader.pipeline.inconsistent() == []
            reader.step(4)  # the log, and no resync
            assert reader.reflector.head == self.store.head()
            assert reader.serves() == truth
            for tenant_id, context in reader.registry.prepared.items():
                assert context.revision == reader.pipeline.revision_of(tenant_id)


def change(story):
    """The one of the review: a first use publishes between the reader's question and its note."""
    story.reads(2)
    story.writes(lambda: story.writers.put("a", 2), lambda: story.writers.put("a", 3))
    story.uses()


def deletion(story):
    story.reads(2)
    story.writes(lambda: story.writers.delete("a"))
    story.uses()


def re_creation(story):
    story.reads(1)
    story.writes(lambda: story.writers.delete("a"), lambda: story.writers.put("a", 9))
    story.uses()
    story.looks_up("a")


def creation(story):
    story.reads(1)
    story.writes(lambda: story.writers.put("b", 1), lambda: story.writers.put("b", 2))
    story.looks_up("b")


def brief_life(story):
    story.reads(1)
    story.writes(lambda: story.writers.put("b", 1), lambda: story.writers.delete("b"))
    story.looks_up("b")


def resync(story):
    story.resyncs()
    story.writes(lambda: story.writers.put("a", 2), lambda: story.writers.put("b", 1))
    story.uses()
    story.looks_up("b")


def bad_record(story):
    story.reads(2)
    story.writes(lambda: story.writers.put("a", 2, bad=True), lambda: story.writers.put("a", 3))
    story.uses()


def restore(story):
    """Another history uses the revisions again that a first use has in hand."""
    saved, story.restored = story.writers.snapshot(), True
    story.writers.put("a", "discarded")
    story.reader.step(2)
    story.pipeline.reset_after_fork()
    story.lock = story.pipeline._lock = SteppedLock(story.schedule)
    story.reader.registry.prepared.clear(), story.pipeline._held.clear()
    story.reads(2)
    story.writes(lambda: (story.writers.roll_back(saved), story.writers.put("a", "kept")))
    story.uses()


def fork_in_peace(story):
    story.reads(1)
    story.writes(lambda: story.writers.put("a", 2))
    story.uses()
    story.forks(still=True)


def fork_at_any_moment(story):
    """Somebody publishes, half of it is done."""
    story.pipeline.load("a", story.store.get_many)
    story.writers.put("a", 2)
    story.reads(1)
    story.forks(still=False)


STORIES = [
    change,
    deletion,
    re_creation,
    creation,
    brief_life,
    resync,
    bad_record,
    restore,
    fork_in_peace,
    fork_at_any_moment,
]


def tell(story, eager_max, most=MOST):
    def run(schedule):
        told = Story(schedule, eager_max)
        story(told)
        schedule.run(told.look)
        told.ends_well()

    return schedules(run, most)


@pytest.fixture
def halves(monkeypatch):
    """A publication can be interrupted between any two of its assignments."""
    plain, schedule = registry_module._put, []
    monkeypatch.setattr(Schedule, "run", _remembering(schedule, Schedule.run))

    def put(known, tenant_id, value):
        plain(known, tenant_id, value)
        for running in schedule[-1:]:
            running.point()

    monkeypatch.setattr(registry_module, "_put", put)


def _remembering(schedule, run):
    def remembered(self, look):
        schedule.append(self)
        run(self, look)

    return remembered


@pytest.mark.parametrize("eager_max", [0, 5000], ids=["lazy", "eager"])
@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
def test_no_order_leaves_an_older_record_behind(story, eager_max, request):
    if story is fork_at_any_moment:
        request.getfixturevalue("halves")
    print(f"{tell(story, eager_max)} schedules")


# --- each part of it is needed ---


def without_comparing(monkeypatch):
    """Whoever has read something publishes it."""
    monkeypatch.setattr(publishing.Publisher, "_says", lambda self, tenant_id, entry: True)


def without_asking_for_the_record(monkeypatch):
    """An entry is noted whatever is held of its tenant."""
    monkeypatch.setattr(publishing, "_tells_nothing", lambda change: False)


def without_mending_a_child(monkeypatch):
    monkeypatch.setattr(publishing.Publisher, "inconsistent", lambda self: [])


GUARDS = [
    (brief_life, without_comparing),
    (change, without_asking_for_the_record),
    (fork_at_any_moment, without_mending_a_child),
]


@pytest.mark.parametrize(("story", "guard"), GUARDS, ids=lambda value: value.__name__)
def test_the_guard_is_needed(story, guard, monkeypatch, request):
    if story is fork_at_any_moment:
        request.getfixturevalue("halves")
    guard(monkeypatch)
    with pytest.raises(AssertionError):
        tell(story, 0)
