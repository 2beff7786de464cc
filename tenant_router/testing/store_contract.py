"""The contract of a config store as tests, for everybody who writes a backend."""

from __future__ import annotations

import os
import random
import signal
import statistics
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial

import pytest

from tenant_router.config_store.base import (
    ACTIVE,
    DELETED,
    DRAINING,
    MAX_BODY,
    MAX_OPS,
    META_ID,
    PROVISIONING,
    SUSPENDED,
    ConfigStore,
    Event,
    Head,
    Op,
    StoredRecord,
    digest_of,
    unpack,
)
from tenant_router.exceptions import Compacted, Conflict, Denied, EpochChanged, StoreUnavailable

State = dict[str, tuple[int, str, str]]


class StoreContract:
    """What every backend must pass. Derive ``TestMyStore(StoreContract)`` and override the hooks.

    ``store`` is a fixture: an empty store that is closed after the test. ``reopen``, ``wipe``
    and ``short_log`` are needed by every backend; ``outage`` and ``denied`` skip their tests
    unless they are overridden, which suits stores that no network leads to. For readable
    failures, call ``pytest.register_assert_rewrite("tenant_router.testing.store_contract")``
    in a ``conftest.py``.
    """

    INDEX_SIZE = 100_000
    """Tenants in the test of a large index."""
    CAS_ROUNDS = 1_000
    """Increments per writer in the test of compare-and-set."""
    PUSH = 0.1
    """Seconds within which a waiting reader hears of a commit."""
    TIMEOUT = 5.0
    """Seconds within which each verb gives up when the store does not answer."""

    # --- hooks -------------------------------------------------------------------------

    @pytest.fixture
    def store(self) -> Iterator[ConfigStore]:
        """An empty store."""
        raise NotImplementedError

    def reopen(self, store: ConfigStore) -> ConfigStore:
        """Another object on the data of ``store``, as another process would open it."""
        raise NotImplementedError

    def wipe(self, store: ConfigStore) -> None:
        """Remove all data of ``store`` behind its back."""
        raise NotImplementedError

    def short_log(self) -> ConfigStore:
        """An empty store whose log cannot hold 1,000 events."""
        raise NotImplementedError

    def outage(self, store: ConfigStore) -> AbstractContextManager[None]:
        """A block within which the store does not answer."""
        pytest.skip("this backend cannot be unreachable")

    def denied(self, store: ConfigStore) -> tuple[ConfigStore, str]:
        """A store with a wrong credential, and that credential."""
        pytest.skip("this backend asks for no credentials")

    # --- history and compare-and-set ---------------------------------------------------

    def test_an_empty_store_is_not_an_empty_fleet(self, store: ConfigStore) -> None:
        """Nobody may conclude from a lost store that all tenants were deleted."""
        with pytest.raises(EpochChanged):
            store.head()
        with pytest.raises(EpochChanged):
            put(store, "a", epoch="one-that-was")
        with pytest.raises(EpochChanged):
            store.changes(Head("one-that-was", 7, "c"), wait=0)
        assert index_of(store) == {}

    def test_the_first_commit_begins_a_history(self, store: ConfigStore) -> None:
        """An unnamed epoch is created, named, and may then be insisted on."""
        assert put(store, "a") == 1
        head = store.head()
        assert head.epoch
        assert head.rev == 1
        assert put(store, "b", epoch=head.epoch) == 2
        assert store.head().epoch == head.epoch

    def test_creating_twice_conflicts(self, store: ConfigStore) -> None:
        """``expect=0`` means that the tenant does not exist."""
        put(store, "a", expect=0)
        with pytest.raises(Conflict) as caught:
            put(store, "a", expect=0)
        assert (caught.value.tenant_id, caught.value.expected, caught.value.have) == ("a", 0, 1)

    def test_a_stale_expectation_conflicts(self, store: ConfigStore) -> None:
        """The error tells the revision that there is."""
        first = put(store, "a")
        put(store, "b")
        second = put(store, "a", expect=first)
        with pytest.raises(Conflict) as caught:
            put(store, "a", expect=first)
        assert (caught.value.expected, caught.value.have) == (first, second)
        with pytest.raises(Conflict):
            put(store, "unknown", expect=1)

    def test_a_conflict_writes_nothing(self, store: ConfigStore) -> None:
        """Not even the operations of the batch that stand before it."""
        put(store, "a")
        head, index = store.head(), index_of(store)
        with pytest.raises(Conflict):
            commit(store, Op("new", ACTIVE, b"1"), Op("a", DELETED), Op("a", ACTIVE, b"2", expect=99))
        assert store.head() == head
        assert index_of(store) == index
        assert store.get_many(["a", "new"]).keys() == {"a"}
        assert store.changes(head) == []

    def test_operations_of_one_tenant_in_a_batch_follow_one_another(self, store: ConfigStore) -> None:
        """A later operation expects what the earlier ones of its batch will have written."""
        commit(store, Op("a", ACTIVE, b"1", 0), Op("a", SUSPENDED, b"2", 1), Op("a", DELETED, expect=2))
        assert commit(store, Op("a", DELETED), Op("a", ACTIVE, b"5", 0)) == 5
        assert store.get_many(["a"])["a"].body == b"5"

    def test_a_request_has_one_effect(self, store: ConfigStore) -> None:
        """A repeated request id returns the old revision, though its expectation no longer holds."""
        ops = [Op("a", ACTIVE, b"1", expect=0), Op("b", ACTIVE, b"1")]
        assert store.commit(ops, request_id="r1") == 2
        put(store, "c")
        head = store.head()
        assert self.reopen(store).commit(ops, request_id="r1") == 2
        assert store.head() == head

    def test_each_operation_takes_one_revision(self, store: ConfigStore) -> None:
        """Revisions have no holes, and a commit returns its last one."""
        assert put(store, "a") == 1
        assert commit(store, *(Op(f"t{number}", ACTIVE, b"x") for number in range(10))) == 11
        with pytest.raises(Conflict):
            put(store, "a", expect=0)
        assert put(store, "a") == 12
        assert store.head().rev == 12

    def test_a_batch_is_bounded(self, store: ConfigStore) -> None:
        """Nothing is written of a batch that is empty or too long."""
        with pytest.raises(ValueError):
            commit(store)
        with pytest.raises(ValueError):
            commit(store, *(Op("a", ACTIVE, b"x") for _ in range(MAX_OPS + 1)))
        with pytest.raises(EpochChanged):
            store.head()

    def test_two_writers_lose_no_update(self, store: ConfigStore) -> None:
        """Read, compare and set from two writers adds up exactly."""
        put(store, "counter", b"0")
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(self._increment, [store, self.reopen(store)]))
        assert store.get_many(["counter"])["counter"].body == b"%d" % (2 * self.CAS_ROUNDS)

    def _increment(self, store: ConfigStore) -> None:
        for _ in range(self.CAS_ROUNDS):
            while True:
                have = store.get_many(["counter"])["counter"]
                with suppress(Conflict):
                    put(store, "counter", b"%d" % (int(have.body) + 1), expect=have.rev)
                    break

    # --- records -----------------------------------------------------------------------

    def test_records_come_back_as_they_were(self, store: ConfigStore) -> None:
        """Every state and any bytes, with the digest of the body."""
        states = (PROVISIONING, ACTIVE, SUSPENDED, DRAINING)
        bodies = [b"", b"|:\r\n\x00", bytes(range(256)), random.Random(1).randbytes(MAX_BODY)]
        for rev, (state, body) in enumerate(zip(states, bodies, strict=True), 1):
            assert put(store, f"t{rev}", body, state=state) == rev
            assert store.get_many([f"t{rev}"]) == {f"t{rev}": StoredRecord(rev, state, digest_of(body), body)}
            assert index_of(store)[f"t{rev}"] == (rev, state, digest_of(body))

    def test_a_body_that_is_too_large_is_refused(self, store: ConfigStore) -> None:
        """Before anything is written."""
        with pytest.raises(ValueError, match="large"):
            commit(store, Op("a", ACTIVE, b"x"), Op("large", ACTIVE, b"x" * (MAX_BODY + 1)))
        with pytest.raises(EpochChanged):
            store.head()

    def test_only_what_exists_is_found(self, store: ConfigStore) -> None:
        """Asking for nothing, or for strangers, is no error."""
        put(store, "tenant_1")
        assert store.get_many([]) == {}
        assert store.get_many(["tenant_10", "tenant_", "TENANT_1", ""]) == {}
        assert store.get_many(["x", "tenant_1", "tenant_1"]).keys() == {"tenant_1"}

    def test_the_reserved_record_is_like_any_other(self, store: ConfigStore) -> None:
        """``mapping_metadata`` lives in the same commits as the tenants."""
        commit(store, Op(META_ID, ACTIVE, b"m", expect=0), Op("a", ACTIVE, b"x"))
        assert store.get_many([META_ID])[META_ID].body == b"m"
        assert index_of(store).keys() == {META_ID, "a"}

    def test_a_deleted_tenant_leaves_a_tombstone(self, store: ConfigStore) -> None:
        """It is told from one that never was, counts as absent, and comes back at a higher revision."""
        put(store, "a")
        head = store.head()
        assert commit(store, Op("a", DELETED, b"ignored", expect=1)) == 2
        assert store.get_many(["a"]) == {}
        assert index_of(store) == {"a": (2, DELETED, "")}
        assert [(event.state, event.digest) for event in store.changes(head)] == [(DELETED, "")]
        with pytest.raises(Conflict) as caught:
            put(store, "a", expect=2)
        assert caught.value.have == 0
        assert put(store, "a", b"again", expect=0) == 3
        assert store.get_many(["a"])["a"].body == b"again"

    def test_a_large_index_is_read_in_pages(self, store: ConfigStore) -> None:
        """No page is much longer than asked for, and none is missing."""
        ids = [f"t{number}" for number in range(self.INDEX_SIZE)]
        for start in range(0, len(ids), MAX_OPS):
            commit(store, *(Op(tenant_id, ACTIVE, b"x") for tenant_id in ids[start : start + MAX_OPS]))
        pages = list(pages_of(store, 1_000))
        assert max(map(len, pages)) <= 5_000
        assert {tenant_id for page in pages for tenant_id in page} == set(ids)

    def test_a_scan_and_the_changes_since_make_the_state(self, store: ConfigStore) -> None:
        """Pages that are read while others write, then the log from before them: nothing is lost."""
        dice = random.Random(2)
        writer = self.reopen(store)
        ids = [f"t{number}" for number in range(2_000)]
        commit(writer, *(Op(tenant_id, ACTIVE, b"0") for tenant_id in ids[:1_500]))
        for _ in range(3):
            head, state = store.head(), {}
            for page in pages_of(store, 100):
                state.update(state_of(page))
                commit(writer, *(_random_op(dice, ids) for _ in range(dice.randint(1, 20))))
            head = replay(store, head, state)
            assert head == store.head()
            assert state == index_of(store)
            alive = [tenant_id for tenant_id, entry in state.items() if entry[1] != DELETED]
            assert {key: record[:3] for key, record in store.get_many(ids).items()} == {
                tenant_id: state[tenant_id] for tenant_id in alive
            }

    # --- the log -----------------------------------------------------------------------

    def test_events_are_contiguous_and_come_once(self, store: ConfigStore) -> None:
        """Whatever the pages, the log says every operation in order, and where the chain ends."""
        put(store, "t0")
        head = store.head()
        for number in range(1, 8):
            commit(store, Op(f"t{number}", ACTIVE, b"x"), Op(f"t{number - 1}", DELETED))
        after, events = head, list[Event]()
        while page := store.changes(after, limit=4):
            assert len(page) <= 4
            events += page
            after = Head(head.epoch, page[-1].rev, page[-1].chain)
        assert after == store.head()
        assert [event.rev for event in events] == list(range(2, 16))
        assert [event.tenant_id for event in events][:4] == ["t1", "t0", "t2", "t1"]

    def test_a_reader_resumes_from_any_revision(self, store: ConfigStore) -> None:
        """Each earlier head leads to the present one."""
        heads = []
        for number in range(20):
            put(store, f"t{number % 3}", b"%d" % number)
            heads.append(store.head())
        for head in heads:
            assert [event.rev for event in store.changes(head)] == list(range(head.rev + 1, 21))

    def test_a_reader_behind_the_log_is_told(self, store: ConfigStore) -> None:
        """It must read the index; the events that are left would not make up for those that are gone."""
        short = self.short_log()
        put(short, "a")
        head = short.head()
        commit(short, *(Op(f"t{number}", ACTIVE, b"x") for number in range(1_000)))
        with pytest.raises(Compacted):
            short.changes(head)
        end = short.head()
        put(short, "last")
        assert [event.tenant_id for event in short.changes(end)] == ["last"]
        short.close()

    def test_a_reader_ahead_of_the_store_is_told(self, store: ConfigStore) -> None:
        """It does not wait in silence for revisions that are another history's."""
        put(store, "a")
        head = store.head()
        with pytest.raises(EpochChanged):
            store.changes(head._replace(rev=5), wait=0.2)

    def test_a_rewritten_history_is_noticed(self, store: ConfigStore) -> None:
        """By the chain, at the same revision and below it."""
        put(store, "a")
        early = store.head()._replace(chain="0" * 40)
        with pytest.raises(EpochChanged):
            store.changes(early)
        put(store, "b")
        with pytest.raises(EpochChanged):
            store.changes(early)

    @pytest.mark.parametrize("commits", [1, 2, 3, 4])
    def test_another_history_is_noticed(self, store: ConfigStore, commits: int) -> None:
        """Though it says the same, whether it is shorter or longer than the one that was followed."""
        for _ in range(2):
            put(store, "a", b"same")
        head = store.head()
        self.wipe(store)
        with pytest.raises(EpochChanged):
            store.changes(head)
        for _ in range(commits):
            put(store, "a", b"same")
        with pytest.raises(EpochChanged):
            store.changes(head, wait=0.1)
        with pytest.raises(EpochChanged):
            put(store, "a", epoch=head.epoch)
        assert store.head().rev == commits

    # --- waiting -----------------------------------------------------------------------

    def test_a_silent_wait_ends(self, store: ConfigStore) -> None:
        """With nothing, after the time that was asked for."""
        put(store, "a")
        head = store.head()
        store.changes(head, wait=0.05)
        for wait in (0.0, 0.5):
            assert in_time(partial(self._silence, store, head, wait), wait + 1)

    def _silence(self, store: ConfigStore, head: Head, wait: float) -> float:
        began = time.monotonic()
        assert store.changes(head, wait=wait) == []
        took = time.monotonic() - began
        assert took >= wait - 0.01
        return took

    def test_a_commit_wakes_a_waiting_reader(self, store: ConfigStore) -> None:
        """At once, whoever wrote it."""
        put(store, "a")
        writer, delays, head = self.reopen(store), list[float](), store.head()
        store.changes(head, wait=0.05)
        while len(delays) < 5 or (statistics.median(delays) >= self.PUSH and sum(delays) < 10):
            with _later(lambda: put(writer, "a")) as moments:
                events = store.changes(head, wait=10)
                delays.append(time.monotonic() - moments[0])
            assert len(events) == 1
            head = Head(head.epoch, events[-1].rev, events[-1].chain)
        assert statistics.median(delays) < self.PUSH

    def test_a_long_batch_is_read_without_waiting_in_between(self, store: ConfigStore) -> None:
        """One push announces many events; a reader with a small limit gets all of them at once."""
        put(store, "a")
        head = store.head()
        store.changes(head, wait=0.05)
        commit(store, *(Op(f"t{number}", ACTIVE, b"x") for number in range(50)))
        began = time.monotonic()
        for _ in range(5):
            events = store.changes(head, limit=10, wait=20)
            head = Head(head.epoch, events[-1].rev, events[-1].chain)
        assert head == store.head()
        assert time.monotonic() - began < 15  # a single wait takes longer

    # --- processes, threads, failures --------------------------------------------------

    def test_threads_share_a_store(self, store: ConfigStore) -> None:
        """Sixteen of them use every verb at a time, and nothing is mixed up."""
        put(store, "start")
        start = store.head()
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda number: self._mixed_use(store, f"t{number}"), range(16)))
        state: State = {}
        assert replay(store, start, state).rev == store.head().rev == 1 + 16 * 20
        assert state == {key: entry for key, entry in index_of(store).items() if key != "start"}

    def _mixed_use(self, store: ConfigStore, tenant_id: str) -> None:
        rev = 0
        for number in range(20):
            body = f"{tenant_id}:{number}".encode()
            rev = put(store, tenant_id, body, expect=rev)
            assert store.get_many([tenant_id]) == {tenant_id: StoredRecord(rev, ACTIVE, digest_of(body), body)}
            assert index_of(store)[tenant_id] == (rev, ACTIVE, digest_of(body))
            assert store.head().rev >= rev

    def test_parent_and_child_go_on_after_a_fork(self, store: ConfigStore) -> None:
        """The child has connections of its own, and its end does not disturb the parent's."""
        put(store, "a")
        head = store.head()
        store.changes(head, wait=0.05)
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(store.changes, head, wait=30)
            time.sleep(0.1)
            assert in_child(lambda: _use_in_child(store, head)) == 0
            put(store, "b")
            assert waiting.result()[0].rev == 2
        head = store.head()
        with _later(lambda: put(store, "c")):
            assert store.changes(head, wait=10)

    def test_a_lease_ends_by_itself(self, store: ConfigStore) -> None:
        """A lease is read with its age, renewed, given up, forgotten, and is no part of the history."""
        if not store.keeps_leases:
            pytest.skip("this backend keeps no leases")
        assert store.leases() == {}
        said = {name: _said(store, name, value, 600) for name, value in (("one", "says | this"), ("two", "ü"))}
        time.sleep(0.1)
        assert _values(store, said) == {"one": "says | this", "two": "ü"}
        said["one"] = _said(store, "one", "again", 600)
        assert _values(store, said) == {"one": "again", "two": "ü"}
        began, _ = _said(store, "three", "briefly", 0.3)
        while "three" in store.leases():
            assert time.monotonic() - began < 30
            time.sleep(0.02)
        assert time.monotonic() - began > 0.29
        assert _values(store, said) == {"one": "again", "two": "ü"}
        for name in said:
            store.lease(name, "", 0)
        assert store.leases() == {}
        with pytest.raises(EpochChanged):
            store.head()

    def test_one_of_many_has_a_claim(self, store: ConfigStore) -> None:
        """A claim is had by one of those who ask at once, may be given back, ends, and is no part of the history."""
        if not store.keeps_claims:
            pytest.skip("this backend keeps no claims")
        assert store.claimed("work") == set()
        with ThreadPoolExecutor(8) as pool:
            had = list(pool.map(lambda number: store.claim("work", f"{number % 5}", 60), range(200)))
        assert had.count(True) == 5
        assert store.claimed("work") == {"0", "1", "2", "3", "4"}
        store.release("work", "3")
        store.release("work", "unknown")
        assert store.claim("work", "3", 60)
        assert [store.claim("work", "lost answer", 60, by) for by in ("x", "y", "x", "")] == [True, False, True, False]
        assert store.claim("other work", "3", 0.2)
        time.sleep(0.4)
        assert store.claim("other work", "3", 60)
        with pytest.raises(EpochChanged):
            store.head()

    def test_closing_wakes_and_refuses(self, store: ConfigStore) -> None:
        """A blocked reader returns at once; every later use says that the store is closed."""
        put(store, "a")
        head = store.head()
        assert in_time(lambda: self._closed_while_it_waits(self.reopen(store), head), 0.5)
        store.changes(head, wait=0.05)
        store.close()
        store.close()
        for verb in verbs(store, head):
            with pytest.raises(StoreUnavailable):
                verb()

    def _closed_while_it_waits(self, store: ConfigStore, head: Head) -> float:
        store.changes(head, wait=0.05)
        with _later(store.close) as moments:
            with pytest.raises(StoreUnavailable):
                store.changes(head, wait=10)
            return time.monotonic() - moments[0]

    def test_an_unreachable_store_is_unavailable(self, store: ConfigStore) -> None:
        """Every verb says so in time, and works again afterwards without a new object."""
        put(store, "a")
        head = store.head()
        store.changes(head, wait=0.05)
        with self.outage(store):
            *others, changes = verbs(store, head)
            with ThreadPoolExecutor(len(others)) as pool:
                assert all(pool.map(self._gives_up, others))
            assert self._gives_up(changes)
        assert put(store, "b") >= 2
        assert [event.tenant_id for event in store.changes(head, wait=1)][-1] == "b"

    def _gives_up(self, verb: Callable[[], object]) -> bool:
        return in_time(partial(self._refused, verb), self.TIMEOUT)

    def _refused(self, verb: Callable[[], object]) -> float:
        began = time.monotonic()
        with pytest.raises(StoreUnavailable):
            verb()
        return time.monotonic() - began

    def test_a_wrong_credential_is_denied(self, store: ConfigStore) -> None:
        """By every verb, and no message repeats it."""
        stranger, secret = self.denied(store)
        for verb in verbs(stranger, Head("e", 1, "c")):
            with pytest.raises(Denied) as caught:
                verb()
            assert secret not in str(caught.value)
        stranger.close()


def commit(store: ConfigStore, *ops: Op, epoch: str | None = None) -> int:
    """Commit ``ops`` under a new request id."""
    return store.commit(ops, request_id=uuid.uuid4().hex, epoch=epoch)


def put(
    store: ConfigStore,
    tenant_id: str,
    body: bytes = b"body",
    *,
    expect: int | None = None,
    state: str = ACTIVE,
    epoch: str | None = None,
) -> int:
    """Commit one record and return its revision."""
    return commit(store, Op(tenant_id, state, body, expect), epoch=epoch)


def pages_of(store: ConfigStore, limit: int) -> Iterator[Mapping[str, str]]:
    """The pages of the whole index."""
    cursor, page = store.scan("", limit)
    yield page
    while cursor:
        cursor, page = store.scan(cursor, limit)
        yield page


def state_of(page: Mapping[str, str]) -> State:
    """Index entries by tenant."""
    return {tenant_id: unpack(entry) for tenant_id, entry in page.items()}


def index_of(store: ConfigStore) -> State:
    """The whole index by tenant."""
    return {key: entry for page in pages_of(store, 500) for key, entry in state_of(page).items()}


def replay(store: ConfigStore, head: Head, state: State) -> Head:
    """Bring ``state`` from ``head`` to the present, and return where that is."""
    while events := store.changes(head, limit=100):
        state.update({event.tenant_id: (event.rev, event.state, event.digest) for event in events})
        head = Head(head.epoch, events[-1].rev, events[-1].chain)
    return head


def verbs(store: ConfigStore, head: Head) -> list[Callable[[], object]]:
    """One call of each verb, reading before and after a subscription alike."""
    return [
        store.head,
        lambda: store.scan("", 10),
        lambda: store.get_many(["a"]),
        lambda: put(store, "a"),
        lambda: store.changes(head, wait=0.2),
        lambda: store.changes(head),
    ]


def in_time(measure: Callable[[], float], limit: float) -> bool:
    """Whether it takes less than ``limit`` seconds once out of five times, as the machine may stand still at any."""
    return any(measure() < limit for _ in range(5))


def _said(store: ConfigStore, name: str, value: str, seconds: float) -> tuple[float, float]:
    """Lease it; returns between which moments that was."""
    began = time.monotonic()
    store.lease(name, value, seconds)
    return began, time.monotonic()


def _values(store: ConfigStore, said: Mapping[str, tuple[float, float]]) -> dict[str, str]:
    """What is leased now, by name; each lease is as old as it can be by the moments of ``said``."""
    asked, leases, answered = time.monotonic(), store.leases(), time.monotonic()
    for name, (began, ended) in said.items():
        assert asked - ended - 0.05 < leases[name].age < answered - began + 0.05
    return {name: lease.value for name, lease in leases.items()}


def _random_op(dice: random.Random, ids: list[str]) -> Op:
    state = dice.choice([ACTIVE, SUSPENDED, DELETED])
    return Op(dice.choice(ids), state, dice.randbytes(8))


@contextmanager
def _later(action: Callable[[], object], delay: float = 0.2) -> Iterator[list[float]]:
    """Run ``action`` in a thread after ``delay`` seconds; yields the list that gets the moment of it."""
    moments: list[float] = []

    def run() -> None:
        time.sleep(delay)
        moments.append(time.monotonic())
        action()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield moments
    finally:
        thread.join()


def in_child(action: Callable[[], object], timeout: int = 60) -> int:
    """The exit code of a forked child that runs ``action``: 0 when it neither raises nor takes ``timeout`` seconds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # threads are running, which is the point
        pid = os.fork()
    if pid == 0:
        code = 1
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(timeout)
        with suppress(BaseException):
            action()
            code = 0
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _use_in_child(store: ConfigStore, head: Head) -> None:
    store.reset_after_fork()
    for verb in verbs(store, head)[:3]:
        verb()
    assert store.changes(head, wait=0.1) == []
    put(store, "child")
    began = time.monotonic()
    assert store.changes(head, wait=20)[0].rev == 2
    assert time.monotonic() - began < 15  # the push was the child's own, and not taken by the parent
    store.close()
