"""Writers, readers, trimming, rollback, loss and crashes in any order: every reader ends up with what the store has."""

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, precondition, rule

from tenant_router.reactive import reflector
from tenant_router.reactive.shrinking import ACCEPTED
from tests.faults.readers import REFUSED, Reader, Writers

IDS = [f"t{number}" for number in range(30)]


class Fleet(RuleBasedStateMachine):
    """Three processes and one store."""

    snapshots = Bundle("snapshots")

    @initialize(eager_max=st.sampled_from([0, 5000]))
    def begin(self, eager_max):
        self.eager_max, self.values = eager_max, 0
        self.traceless = False  # something was lost that no log tells of
        self.writers = Writers(log_length=12)
        self.writers.put("t0", "first")
        self.readers = [Reader(self.writers.store, eager_max) for _ in range(3)]
        self.seen = [{} for _ in self.readers]  # per reader: (epoch, tenant) -> the revisions it held, in order
        self.good = {}  # tenant -> every value that it ever had
        self._remember()

    def _remember(self):
        for tenant_id, value in self.writers.truth().items():
            self.good.setdefault(tenant_id, set()).add(value)

    @rule(tenant_id=st.sampled_from(IDS), bad=st.sampled_from([False, False, False, True]))
    def write(self, tenant_id, bad):
        self.values += 1
        self.writers.put(tenant_id, self.values, bad=bad)
        self._remember()

    @rule(tenant_ids=st.lists(st.sampled_from(IDS), min_size=1, max_size=20))
    def write_many(self, tenant_ids):
        for tenant_id in tenant_ids:
            self.write(tenant_id, bad=False)

    @rule(tenant_id=st.sampled_from(IDS))
    def delete(self, tenant_id):
        self.writers.delete(tenant_id)

    @rule(which=st.integers(0, 2), times=st.integers(1, 3))
    def read(self, which, times):
        self.readers[which].step(times)

    @rule(which=st.integers(0, 2), tenant_id=st.sampled_from(IDS))
    def use(self, which, tenant_id):
        if tenant_id in self.readers[which].registry.get_known_ids():
            self.readers[which].value(tenant_id)

    @rule(keep=st.integers(0, 5))
    def trim(self, keep):
        self.writers.trim(keep)

    @rule(target=snapshots)
    def snapshot(self):
        return self.writers.snapshot()

    @rule(snapshot=snapshots)
    def roll_back(self, snapshot):
        self.writers.roll_back(snapshot)

    @rule(snapshot=snapshots, more=st.integers(-2, 3))
    def roll_back_and_use_the_revisions_again(self, snapshot, more):
        lost = self.writers.content.rev - snapshot[1]
        self.writers.roll_back(snapshot)
        for number in range(max(0, min(lost, 40) + more)):
            self.write(IDS[number % len(IDS)], bad=False)

    @rule()
    def lose_everything(self):
        self.writers.store.clear()

    @precondition(lambda self: self.writers.content.rev)
    @rule(tenant_ids=st.sets(st.sampled_from(IDS), max_size=25))
    def lose(self, tenant_ids):
        self.writers.lose(tenant_ids & self.writers.content.records.keys())
        self.traceless = True

    @rule(which=st.integers(0, 2))
    def crash(self, which):
        self.readers[which] = Reader(self.writers.store, self.eager_max)
        self.seen[which] = {}

    @invariant()
    def no_revision_goes_back_within_a_history(self):
        """A history is known by its chain: a rollback that was written on is another one."""
        for reader, seen in zip(getattr(self, "readers", ()), getattr(self, "seen", ()), strict=True):
            head = reader.reflector.head
            if head is None:
                seen.clear()
                continue
            for tenant_id, context in reader.registry.prepared.items():
                before = seen.get(tenant_id)
                if before and before[0] == head.epoch and context.revision < before[1]:
                    assert before[2] != reader.reflector.syncs, f"{tenant_id} went back without a look at the index"
                seen[tenant_id] = (head.epoch, context.revision, reader.reflector.syncs)

    @invariant()
    def only_what_was_once_written_is_served(self):
        for reader in getattr(self, "readers", ()):
            for tenant_id, context in reader.registry.prepared.items():
                assert context.parts["plain"]["value"] in self.good[tenant_id]

    def teardown(self):
        if not hasattr(self, "writers"):
            return
        if not self.writers.content.epoch:
            self.write("t0", bad=False)  # a store that lost everything has a history again
        head = self.writers.store.head()
        self.writers.store.claim(ACCEPTED, f"{head.epoch}:{head.rev}", 60)
        truth = self.writers.truth()
        for reader in self.readers:
            reader.step(6)
            if self.traceless:
                reader.reflector._resync_at = 0.0
                reader.step(2)
            assert reader.reflector.head == head
            served = reader.serves()
            assert served.keys() == truth.keys()
            for tenant_id, value in truth.items():
                if value == REFUSED:
                    assert served[tenant_id] == REFUSED or served[tenant_id] in self.good[tenant_id]
                else:
                    assert served[tenant_id] == value, tenant_id


TestFleet = Fleet.TestCase
TestFleet.settings = settings(
    max_examples=120, stateful_step_count=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)


@pytest.fixture(autouse=True)
def no_pace(monkeypatch):
    monkeypatch.setattr(reflector, "PACE_MAX", 0.0)
