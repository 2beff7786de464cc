"""Each guard of the loop is needed: the same story goes well with it, and wrong with the guard taken out."""

import threading
import time
from dataclasses import dataclass

import pytest

from tenant_router.config_store import base
from tenant_router.config_store.base import Event, Head
from tenant_router.exceptions import EpochChanged
from tenant_router.reactive import reflector as reflector_module
from tenant_router.reactive import shrinking
from tenant_router.reactive.pipeline import Pipeline
from tenant_router.reactive.reflector import Reflector
from tests.faults.readers import REFUSED, Reader, Writers

pytestmark = pytest.mark.usefixtures("no_pace")


@pytest.fixture
def no_pace(monkeypatch):
    monkeypatch.setattr(reflector_module, "PACE_MAX", 0.0)


def a_gap():
    """The log was trimmed past the reader."""
    writers = Writers()
    writers.put("a", 1)
    writers.put("b", 1)
    reader = Reader(writers.store)
    reader.step()
    writers.put("a", 2)
    writers.put("b", 2)
    writers.put("c", 1)
    writers.trim(1)
    reader.step(5)
    return reader, writers


def a_rollback():
    """The store came back with an older state and used the revisions again that the reader has seen."""
    writers = Writers()
    writers.put("a", 1)
    snapshot = writers.snapshot()
    writers.put("b", 2)
    writers.put("a", 3)
    reader = Reader(writers.store)
    reader.step()
    writers.roll_back(snapshot)
    writers.put("c", 2)
    writers.put("d", 3)
    writers.put("e", 4)
    reader.step(5)
    return reader, writers


def a_silent_rollback():
    """Nothing was written since the store came back: there is no event that could tell."""
    writers = Writers()
    writers.put("a", 1)
    snapshot = writers.snapshot()
    writers.put("a", 2)
    reader = Reader(writers.store)
    reader.step()
    writers.roll_back(snapshot)
    reader.step(5)
    return reader, writers


def a_lost_push():
    """The subscription says nothing, though something was written."""
    writers = Writers()
    writers.put("a", 1)
    reader = Reader(writers.store)
    reader.step()
    writers.store._announced = lambda rev, wait: False
    writers.put("a", 2)
    reader.step(5)
    return reader, writers


def a_shrunken_store():
    """Half a restore: nobody was deleted, and most of them are gone."""
    writers = Writers()
    for number in range(40):
        writers.put(f"t{number}", number)
    before = writers.truth()
    reader = Reader(writers.store)
    reader.step()
    writers.lose([f"t{number}" for number in range(5, 40)])
    reader.reflector._resync_at = 0.0
    reader.step(3)
    return reader, _Kept(before)


def a_bug():
    """Something raises what nobody expects, once."""
    writers = Writers()
    writers.put("a", 1)
    reader = Reader(writers.store)
    reader.step()
    reader.pipeline.apply = _raise_once(reader.pipeline)
    writers.put("a", 2)
    thread = threading.Thread(target=_as_its_thread, args=[reader])
    thread.start()
    thread.join()
    return reader, writers


def a_swapped_record():
    """The index and the documents disagree, as after a forged or half written record."""
    writers = Writers()
    writers.put("a", 1)
    reader = Reader(writers.store)
    reader.step()
    assert reader.serves() == {"a": 1}
    writers.put("a", 2)
    stored = writers.content.records["a"]
    other = Writers()
    other.put("a", "forged")
    writers.content.records["a"] = stored._replace(body=other.content.records["a"].body)
    reader.step(3)
    return reader, _Kept({"a": 1})


@dataclass
class _Kept:
    """What a reader must go on with."""

    values: dict

    def truth(self):
        return self.values


def _raise_once(pipeline):
    def apply(*arguments):
        del pipeline.apply
        raise ZeroDivisionError

    return apply


def _as_its_thread(reader):
    """The loop itself, for three steps; an exception that gets out ends the thread."""
    left = iter(range(3))
    reader.reflector._stopping.is_set = lambda: next(left, None) is None
    try:
        reader.reflector._run()
    except Exception:
        return


# --- the guards, taken out ---


def without_contiguity(monkeypatch):
    monkeypatch.setattr(base, "_follow", lambda after, events: events)


def without_chain(monkeypatch):
    def follow(after, events):
        rev, found = after.rev, base.next_chain
        for event in events:
            if event.rev != rev + 1:
                raise base.Compacted
            rev = event.rev
        assert found
        return events

    real = base.ConfigStore.changes

    def changes(self, after, limit=500, wait=0.0):
        head = self.head()
        chain = head.chain if head.rev == after.rev else after.chain
        return real(self, Head(after.epoch, after.rev, chain), limit, wait)

    monkeypatch.setattr(base, "_follow", follow)
    monkeypatch.setattr(base.ConfigStore, "changes", changes)


def without_replacing(monkeypatch):
    """Entries are compared by their revision, as readers do that know one history only."""
    real = Pipeline.reconcile

    def reconcile(self, before, fresh, fetch, *, same_history):
        kept = dict(self.registry.index)
        newer = {t: entry for t, entry in fresh.items() if int(entry.split(":")[0]) > self.revision_of(t)}
        return real(self, before, {**kept, **newer}, fetch, same_history=same_history)

    monkeypatch.setattr(Pipeline, "reconcile", reconcile)


def without_head_check(monkeypatch):
    def changes(self, after, limit=500, wait=0.0):
        if self._announced(after.rev, wait):
            events = self._log(after.rev, limit)
            return base._follow(after, events) if events else []
        return []

    monkeypatch.setattr(base.ConfigStore, "changes", changes)


def without_shrink_guard(monkeypatch):
    monkeypatch.setattr(Reflector, "_refuse_shrink", lambda self, store, head, fresh: None)


def without_catch_all(monkeypatch):
    def run(self):
        while not self._stopping.is_set():
            try:
                self._step()
            except base.EpochChanged as error:
                self._failed(error)

    monkeypatch.setattr(Reflector, "_run", run)


def without_digest(monkeypatch):
    monkeypatch.setattr("tenant_router.reactive.building.digest_of", lambda body: AnyDigest())


class AnyDigest:
    def __ne__(self, other):
        return False


STORIES = [
    (a_gap, without_contiguity),
    (a_rollback, without_chain),
    (a_rollback, without_replacing),
    (a_silent_rollback, without_head_check),
    (a_lost_push, without_head_check),
    (a_shrunken_store, without_shrink_guard),
    (a_bug, without_catch_all),
    (a_swapped_record, without_digest),
]


def _name(value):
    return value.__name__


@pytest.mark.parametrize(("story", "guard"), STORIES, ids=_name)
def test_the_guard_is_needed(story, guard, monkeypatch):
    reader, truth = story()
    assert reader.serves() == truth.truth()
    guard(monkeypatch)
    reader, truth = story()
    assert reader.serves() != truth.truth()


# --- what an operator may say to a store that shrank ---


def look_again(reader):
    """The next look at the whole index, which follows within seconds."""
    assert reader.reflector._resync_at < time.monotonic() + 30
    reader.reflector._resync_at = 0.0
    reader.step(2)


def test_an_operator_accepts_a_history_at_a_revision():
    reader, _ = a_shrunken_store()
    head = reader.store.head()
    assert reader.reflector.state == reflector_module.SHRUNK
    for said in (f"other:{head.rev}", f"{head.epoch}:{head.rev + 1}"):
        reader.store.claim(shrinking.ACCEPTED, said, 60)
        look_again(reader)
        assert len(reader.serves()) == 40
    reader.store.claim(shrinking.ACCEPTED, f"{head.epoch}:{head.rev}", 60)
    look_again(reader)
    assert len(reader.serves()) == 5
    assert reader.reflector.refuses is False


def test_an_acceptance_of_the_past_does_not_cover_another_history():
    reader, _ = a_shrunken_store()
    head = reader.store.head()
    reader.store.claim(shrinking.ACCEPTED, f"{head.epoch}:{head.rev}", 60)
    claims = dict(reader.store._content.claims)
    reader.store.clear()
    reader.store._content.claims = claims
    Writers(reader.store).put("new", 1)
    reader.step(3)
    assert len(reader.serves()) == 40


def test_a_change_of_tenants_that_stay_is_applied_while_the_shrink_is_refused():
    """The log goes on, so what is written to those that are there reaches the reader."""
    reader, _ = a_shrunken_store()
    writers = Writers(reader.store)
    writers.put("t1", "changed")
    reader.step(3)
    assert reader.value("t1") == "changed"
    assert len(reader.serves()) == 40


def test_a_bad_record_at_first_sight_is_refused_and_nothing_else():
    writers = Writers()
    writers.put("bad", 1, bad=True)
    writers.put("good", 2)
    reader = Reader(writers.store)
    reader.step()
    assert reader.serves() == {"bad": REFUSED, "good": 2}


def test_events_are_the_ones_of_the_history_that_was_followed():
    with pytest.raises(EpochChanged):
        base._follow(Head("e", 1, "chain"), [Event(2, "a", "A", "", "of another history")])


@pytest.mark.parametrize(("restored", "served"), [(True, REFUSED), (False, "good")])
def test_no_last_good_record_is_left_of_a_history_that_was_discarded(restored, served):
    """The restored record is bad, and what came after it never was."""
    writers = Writers()
    writers.put("a", "bad", bad=True)
    saved = writers.snapshot()
    writers.put("a", "good")
    reader = Reader(writers.store)
    reader.step()
    assert reader.serves() == {"a": "good"}
    if restored:
        writers.roll_back(saved)
    else:
        writers.put("a", "bad", bad=True)
        writers.trim(0)  # the index is read, too
    reader.step(3)
    assert reader.serves() == {"a": served}
