"""How a server starts whose store is away, and for how long it serves what it knows."""

import os
import resource
import sqlite3
import time
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from tenant_router import runtime
from tenant_router.config_store.base import Head, StoredRecord, digest_of
from tenant_router.context_decorators import tenant_context_bind
from tenant_router.exceptions import (
    BootError,
    ConfigurationError,
    LastGoodUnusable,
    StoreUnavailable,
    TenantNotFound,
    TenantNotLoaded,
    TenantUnresolved,
)
from tenant_router.managers import tenant_context_manager
from tenant_router.reactive.last_good import LastGood
from tenant_router.reactive.reflector import READY, STALE, STARTING
from tests.faults.hanging import hang
from tests.tenants import eventually

KEY, OTHER_KEY = Fernet.generate_key().decode(), Fernet.generate_key().decode()
CANARY = "canary-pa55word"
RECOVERY = 60  # seconds: after a row of failures a process waits for up to 15 before it asks again


def database(tenant_id):
    with tenant_context_bind(tenant_id) as context:
        return context.parts["django_orm"]["default"].settings["NAME"].rpartition("/")[2]


def serves(tenant_id, name):
    """Whether the tenant has that database by now; a store that was not heard of for a moment is waited for."""
    with suppress(TenantUnresolved):
        return database(tenant_id) == name


@pytest.fixture
def kept(tmp_path):
    """Options of a server that keeps a last-good file."""
    return {"BOOT": "last_good", "LAST_GOOD": str(tmp_path / "last-good"), "KEYS": [KEY]}


@pytest.fixture
def saved(project, own_redis, runtime_on, kept):
    """A server has kept the state with a.test and b.test; then it ended and the store went away."""
    project.put("b.test", {**project.record("b.db"), "labels": [CANARY]})
    made = runtime_on(project, **kept)
    made.serve("web")
    eventually(lambda: os.path.exists(kept["LAST_GOOD"]) and made.last_good._written)
    own_redis.stop()
    return {**kept, "BOOT_TIMEOUT": 0.3}


# --- last_good ---


def test_a_server_starts_from_the_file_and_catches_up(saved, project, own_redis, runtime_on):
    made = runtime_on(project, **{**saved, "BOOT_TIMEOUT": 60})
    started = time.monotonic()
    made.serve("web")
    assert time.monotonic() - started < 30  # it does not wait for the store
    assert made.reflector.state == STALE
    assert [database("a.test"), database("b.test")] == ["a.db", "b.db"]
    own_redis.start()
    project.put("c.test", project.record("c.db"))
    eventually(lambda: made.reflector.state == READY and serves("c.test", "c.db"), RECOVERY)


def test_the_file_tells_nothing_and_is_for_its_owner_alone(saved):
    assert os.stat(saved["LAST_GOOD"]).st_mode & 0o777 == 0o600
    with open(saved["LAST_GOOD"], "rb") as file:
        content = file.read()
    assert CANARY.encode() not in content
    assert b"b.db" not in content
    assert b"b.test" in content  # ids are no secrets: the index needs them


@pytest.mark.parametrize("options", [{"BOOT": "require"}, {}], ids=["require", "another key"])
def test_otherwise_the_server_stops(saved, project, runtime_on, options, caplog):
    options = options or {"KEYS": [OTHER_KEY]}
    with pytest.raises(BootError, match="cannot be read"):
        runtime_on(project, **{**saved, **options}).serve("web")
    assert ("another key" in caplog.text) is ("KEYS" in options)


def test_keys_roll(saved, project, runtime_on):
    runtime_on(project, **{**saved, "KEYS": [OTHER_KEY, KEY]}).serve("web")
    assert database("b.test") == "b.db"


def test_an_old_file_is_not_served(saved, project, runtime_on, caplog):
    with pytest.raises(BootError):
        runtime_on(project, **{**saved, "LAST_GOOD_MAX_AGE": 0.001}).serve("web")
    assert "s old" in caplog.text


def _truncate(path):
    os.truncate(path, os.path.getsize(path) // 2)


def _garbage(path):
    with open(path, "wb") as file:
        file.write(b"garbage" * 1000)


def _forge(path):
    """Somebody makes a deleted tenant active, or swaps two, without having the key."""
    with sqlite3.connect(path) as file:
        file.execute("UPDATE entries SET entry = '9:A:' WHERE tenant = 'a.test'")


@pytest.mark.parametrize("damage", [_truncate, _garbage, _forge, os.unlink])
def test_a_damaged_file_is_no_start(saved, project, runtime_on, caplog, damage):
    damage(saved["LAST_GOOD"])
    with pytest.raises(BootError):
        runtime_on(project, **saved).serve("web")
    assert "last-good file" in caplog.text


def test_a_file_of_somebody_else_is_left_alone(project, runtime_on, kept, caplog):
    file = Path(kept["LAST_GOOD"])
    file.write_text("the settings of another program\n" * 100)
    runtime_on(project, **kept).serve("web")
    eventually(lambda: "it is no last-good file" in caplog.text)
    assert file.read_text().startswith("the settings of another program")


@pytest.mark.parametrize("damage", [_truncate, _forge])
def test_a_damaged_file_is_written_anew(saved, project, own_redis, runtime_on, damage):
    damage(saved["LAST_GOOD"])
    own_redis.start()
    made = runtime_on(project, **{**saved, "BOOT_TIMEOUT": 20})
    made.serve("web")
    made.last_good._next = 0.0

    def readable():
        try:
            return sorted(made.last_good.index()[2])
        except LastGoodUnusable:
            made.last_good._next = 0.0
            return None

    assert eventually(readable) == ["a.test", "b.test"]


@pytest.mark.parametrize("path", ["/nowhere/last-good", "/dev/full", "/"])
def test_a_file_that_cannot_be_written_harms_nobody(project, runtime_on, kept, caplog, path):
    made = runtime_on(project, **{**kept, "LAST_GOOD": path})
    made.serve("web")
    eventually(lambda: "cannot be written" in caplog.text)
    project.put("a.test", project.record("second.db"))
    eventually(lambda: database("a.test") == "second.db")
    assert caplog.text.count("cannot be written") == 1


@contextmanager
def full_disk(size):
    """No file can grow above ``size`` bytes here, as if nothing were left on its disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_leaves_what_was_there_and_is_tried_again(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("tenant_router.reactive.last_good.GAP", 0.0)
    path = tmp_path / "file"
    file = LastGood(str(path), "shop", [KEY], 100)
    file.keep(Head("e", 1, "c"), {"a": "1:X:"}, dict)
    index = {f"tenant-{number}": f"{number}:X:" for number in range(2_000)}
    with full_disk(path.stat().st_size):
        file.keep(Head("e", 2_000, "c"), index, dict)
    assert caplog.text.count("cannot be written") == 1
    assert file.index()[2] == {"a": "1:X:"}
    file.keep(Head("e", 2_000, "c"), index, dict)
    assert file.index()[2] == index


def test_a_record_that_was_never_used_is_read_from_the_file(project, own_redis, runtime_on, kept):
    made = runtime_on(project, EAGER_MAX=0, **kept)
    made.serve("web")
    eventually(lambda: made.last_good._written)
    own_redis.stop()
    assert database("a.test") == "a.db"


def test_without_the_file_it_is_unavailable(project, own_redis, runtime_on):
    runtime_on(project, EAGER_MAX=0).serve("web")
    own_redis.stop()
    with pytest.raises(TenantNotLoaded):
        database("a.test")


def test_many_tenants_go_in_portions_and_what_is_gone_goes(tmp_path, monkeypatch):
    monkeypatch.setattr("tenant_router.reactive.last_good.PORTION", 10)
    file = LastGood(str(tmp_path / "file"), "shop", [KEY], 100)
    index = {f"t{number}": f"{number}:A:d" for number in range(25)} | {"gone": "30:X:"}
    head, fetched = Head("e", 30, "c"), []

    def fetch(ids):
        fetched.append(len(ids))
        return {}

    for portion in range(3):
        file.keep(head, index, fetch)
        if portion < 2:
            with pytest.raises(LastGoodUnusable, match="never complete"):
                file.index()
    assert file.index()[2] == index
    assert sum(fetched) == 25
    del index["t3"]
    file._next = 0.0
    file.keep(Head("e", 31, "d"), index, fetch)
    assert file.index()[2] == index
    assert sum(fetched) == 25


def test_of_two_processes_the_later_state_stays(tmp_path):
    early, late = (LastGood(str(tmp_path / "file"), "shop", [KEY], 100) for _ in range(2))
    late.keep(Head("e", 9, "c"), {"new": "9:X:"}, dict)
    early.keep(Head("e", 5, "b"), {"old": "5:X:"}, dict, {9: "c"}.get)
    assert late.index()[2] == {"new": "9:X:"}
    early._next = 0.0
    early.keep(Head("another", 1, "x"), {"other": "1:X:"}, dict)
    assert late.index()[2] == {"other": "1:X:"}


def test_a_file_of_another_service_is_not_ours(tmp_path):
    LastGood(str(tmp_path / "file"), "shop", [KEY], 100).keep(Head("e", 1, "c"), {"a": "1:X:"}, dict)
    with pytest.raises(LastGoodUnusable, match="'clinic'"):
        LastGood(str(tmp_path / "file"), "clinic", [KEY], 100).index()


def test_a_wrong_key_is_named_and_not_shown():
    with pytest.raises(ConfigurationError, match="generate_key") as caught:
        LastGood("file", "shop", [CANARY], 100)
    assert CANARY not in str(caught.value)


# --- lazy ---


def test_a_lazy_server_starts_at_once_and_serves_when_it_has_read_the_store(project, own_redis, runtime_on):
    own_redis.stop()
    made = runtime_on(project, BOOT="lazy")
    made.serve("web")
    assert made.reflector.state == STARTING
    assert not made.serves
    with pytest.raises(TenantNotLoaded):  # 503, and not 404
        database("a.test")
    own_redis.start()
    eventually(lambda: made.serves, RECOVERY)
    assert database("a.test") == "a.db"
    with pytest.raises(TenantNotFound):
        database("nobody.test")


# --- MAX_STALENESS ---


def test_what_is_too_old_is_not_served(project, own_redis, runtime_on):
    made = runtime_on(project, MAX_STALENESS=1)
    made.serve("web")
    eventually(lambda: serves("a.test", "a.db"))
    hang(own_redis, made)
    eventually(lambda: made.reflector.since_contact > 1)
    with pytest.raises(TenantNotLoaded, match="away for too long"):
        database("a.test")
    assert not made.serves
    own_redis.resume()
    eventually(lambda: made.serves and serves("a.test", "a.db"), RECOVERY)


def test_without_a_limit_the_stores_loss_stops_nobody(project, own_redis, runtime_on):
    made = runtime_on(project)
    made.serve("web")
    own_redis.pause()
    eventually(lambda: made.reflector.state == STALE)
    assert made.serves
    assert database("a.test") == "a.db"
    own_redis.resume()


# --- the thread ---


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_dead_thread_is_started_again_by_whoever_asks_for_health(project, runtime_on, caplog):
    made = runtime_on(project)
    made.serve("web")

    def kill(*arguments):
        made.reflector._step = type(made.reflector)._step.__get__(made.reflector)
        raise SystemExit  # what ends a thread without a trace, unlike any Exception

    made.reflector._step = kill
    eventually(lambda: made.reflector.died)
    assert not made.reflector.ready
    made.revive()
    eventually(lambda: made.reflector.ready)
    assert "died; it is started again" in caplog.text


def test_a_store_that_is_closed_ends_the_thread_for_good(project, runtime_on):
    made = runtime_on(project)
    made.serve("web")
    made.reflector.stop()
    assert not made.reflector.died
    with pytest.raises(StoreUnavailable):
        made.store.head()
    assert runtime.is_installed()
    assert tenant_context_manager.contains("a.test")


# --- whose the file is ---


def keep(path, head=None, index=None, *, service="shop", **more):
    """Write a file, and return what wrote it."""
    file = LastGood(str(path), service, [KEY], 1000)
    file.keep(head or Head("e", 1, "c"), index or {"a": "1:X:"}, dict, **more)
    return file


def test_a_symlink_is_never_written_through(tmp_path, caplog):
    target, link = tmp_path / "somebody's", tmp_path / "kept"
    keep(target)
    before = target.read_bytes()
    link.symlink_to(target)
    keep(link, Head("e", 2, "d"), {"b": "2:X:"})
    assert "cannot be written" in caplog.text
    assert target.read_bytes() == before
    dangling = tmp_path / "dangling"
    dangling.symlink_to(tmp_path / "nowhere")
    keep(dangling)
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("suffix", ["-journal", "-wal"])
def test_nor_is_one_beside_it(tmp_path, suffix, caplog):
    victim = tmp_path / "victim"
    victim.write_text("of somebody else")
    (tmp_path / f"kept{suffix}").symlink_to(victim)
    keep(tmp_path / "kept")
    assert "is a symlink" in caplog.text
    assert victim.read_text() == "of somebody else"


def test_the_file_is_its_owners_alone_whatever_was_there_before(tmp_path):
    path = tmp_path / "kept"
    path.touch(mode=0o666)
    path.chmod(0o666)
    file = keep(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert file.index()[2] == {"a": "1:X:"}


def test_no_file_is_kept_where_anybody_can_replace_it(tmp_path, caplog):
    tmp_path.chmod(0o777)
    keep(tmp_path / "kept")
    assert "anybody may replace files" in caplog.text
    assert not (tmp_path / "kept").exists()


def test_a_file_belongs_to_one_service(tmp_path, caplog):
    ours = keep(tmp_path / "kept")
    keep(tmp_path / "kept", Head("other", 9, "x"), {"z": "9:X:"}, service="clinic")
    assert "it belongs to service 'shop'" in caplog.text
    assert ours.index()[2] == {"a": "1:X:"}


def test_a_clock_that_ran_ahead_makes_no_eternal_youth(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("tenant_router.reactive.last_good.time.time", lambda now=time.time: now() + 86_400 * 365)
        file = keep(tmp_path / "kept")
    with pytest.raises(LastGoodUnusable, match="ahead of this clock"):
        file.index()
    keep(tmp_path / "kept")
    assert file.index()[0] < 900


DISCARDED = {
    "another epoch": (Head("new", 3, "n"), {}),
    "same epoch": (Head("e", 3, "n"), {}),
    "later": (Head("e", 12, "n"), {9: "z"}),
}


@pytest.mark.parametrize("name", DISCARDED)
def test_a_history_that_a_restore_discarded_leaves_the_file_at_once(tmp_path, monkeypatch, name):
    monkeypatch.setattr("tenant_router.reactive.last_good.PORTION", 1)
    head, chains = DISCARDED[name]
    file = keep(tmp_path / "kept", Head("e", 9, "c"), {"gone": "9:X:"})
    file.hasten()
    file.keep(head, {"a": "1:X:", "b": "3:X:"}, dict, chains.get)
    with pytest.raises(LastGoodUnusable, match="never complete"):  # half of it is of the new one
        file.index()
    file.keep(head, {"a": "1:X:", "b": "3:X:"}, dict, chains.get)
    assert file.index()[1:] == (head, {"a": "1:X:", "b": "3:X:"})


def test_a_process_that_finds_another_history_hastens(project, own_redis, runtime_on, kept):
    made = runtime_on(project, **kept)
    made.serve("web")
    eventually(lambda: made.last_good._written)
    old = made.last_good._written
    own_redis.client().flushall()
    project.put("a.test", project.record("other.db"))
    eventually(lambda: made.last_good._written != old)  # in less than the gap between two writes
    assert made.last_good.index()[1] == project.store.head()


@pytest.mark.parametrize("entry", ["garbage", "5:A", "x:A:b", b"\xff", 5])
def test_an_entry_that_is_none_is_a_file_that_cannot_be_read(tmp_path, caplog, entry):
    file = LastGood(str(tmp_path / "file"), "shop", [KEY], 100)
    record = StoredRecord(1, "A", digest_of(b"x"), b"x")
    file.keep(Head("e", 1, "c"), {"a.test": record.packed}, lambda tenant_ids: dict.fromkeys(tenant_ids, record))
    assert file.get_many(["a.test"]) == {"a.test": record}
    with closing(sqlite3.connect(tmp_path / "file")) as opened, opened:
        opened.execute("UPDATE entries SET entry = ?", (entry,))
    assert file.get_many(["a.test"]) == {}
    assert "cannot be read" in caplog.text


@pytest.mark.parametrize("suffix", ["", "-journal", "-wal"])
def test_a_pipe_is_read_by_nobody(tmp_path, suffix):
    """Who opens one waits until somebody writes into it: a server would start never."""
    path = tmp_path / "kept"
    made = LastGood(str(path), "s", [KEY], 60)
    made.keep(Head("e", 1, "c"), {}, lambda tenant_ids: {})
    if not suffix:
        path.unlink()
    os.mkfifo(f"{path}{suffix}")
    writer = os.open(f"{path}{suffix}", os.O_RDWR)  # so that a fault of ours fails here, and waits for nobody
    try:
        with pytest.raises(LastGoodUnusable, match="no regular file"):
            made.index()
    finally:
        os.close(writer)


def _kept(path):
    made = LastGood(str(path), "s", [KEY], 60)
    _keep(made)
    return made


def _keep(made):
    record = StoredRecord(1, "A", digest_of(b"x"), b"x")
    made.keep(Head("e", 1, "c"), {"a.test": record.packed}, lambda tenant_ids: dict.fromkeys(tenant_ids, record))


@pytest.mark.parametrize("filling", [b"\0", b"\xff", b"garbage"])
def test_whatever_page_is_damaged_the_file_is_written_anew(tmp_path, filling):
    """SQLite notices at once for some, and for others when it comes to them."""
    path = tmp_path / "kept"
    _kept(path)
    whole, size = path.read_bytes(), 4096
    for start in range(size, len(whole), size):
        path.write_bytes(whole[:start] + (filling * size)[:size] + whole[start + size :])
        made = LastGood(str(path), "s", [KEY], 60)
        for _ in range(3):
            with suppress(LastGoodUnusable):
                made.index()
            made.get_many(["a.test"])
            made.hasten()
            _keep(made)
        assert made.index()[2].keys() == {"a.test"}, f"after damage at {start}"
        assert made.get_many(["a.test"])["a.test"].body == b"x", f"after damage at {start}"
        path.write_bytes(whole)


@pytest.mark.parametrize("sql", ["INSERT INTO entries VALUES (x'ff', x'ff')", "UPDATE entries SET entry = x'ff'"])
def test_what_is_no_text_is_no_entry(tmp_path, sql):
    made = _kept(tmp_path / "kept")
    with closing(sqlite3.connect(tmp_path / "kept")) as file:
        file.execute(sql)
        file.commit()
    with pytest.raises(LastGoodUnusable, match="changed by somebody else"):
        made.index()
