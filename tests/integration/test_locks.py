"""Two runs never work on one tenant's database at once; a killed one keeps nobody out for long."""

import io
import threading
import time

import pytest
from django.core.management import CommandError, call_command

from tenant_router.exceptions import Locked, StoreUnavailable
from tenant_router.fleet.locks import Locks
from tests.tenants import eventually


@pytest.fixture
def brief(monkeypatch):
    """Locks last briefly, and nobody is patient."""
    monkeypatch.setattr(Locks, "lasts", 0.5)
    monkeypatch.setattr(Locks, "patience", 0.0)


def has_lock(store, name):
    return store.claimed(f"lock:{name}") == {"holder"}


def test_a_lock_is_had_by_one_run_and_given_back(router, brief):
    mine, yours = Locks(router.store), Locks(router.store)
    with mine.holding("a"), mine.holding("b"):
        with pytest.raises(Locked, match="'a'"), yours.holding("a"):
            pytest.fail("held by two")
        with yours.holding("c"):
            assert has_lock(router.store, "c")
    with yours.holding("a"):
        assert has_lock(router.store, "a")
    assert not has_lock(router.store, "a")


def test_a_living_holder_keeps_it_and_a_dead_ones_ends(router, brief):
    mine, yours = Locks(router.store), Locks(router.store)
    with mine.holding("a"):
        until = time.monotonic() + 3 * Locks.lasts
        while time.monotonic() < until:
            with pytest.raises(Locked), yours.holding("a"):
                pytest.fail("held by two")
            time.sleep(0.05)
        mine._held.clear()  # as if it was killed: nobody prolongs it any more
        yours.patience = 60.0
        with yours.holding("a"):
            pass
    eventually(lambda: not has_lock(router.store, "a"))


def test_a_lock_that_is_given_back_while_it_is_prolonged_is_given_back(router, brief, monkeypatch):
    mine, claim = Locks(router.store), router.store.claim
    prolonging, given_back = threading.Event(), threading.Event()

    def slow(name, member, seconds, by=""):
        if threading.current_thread().name == "tenant_router-locks":
            prolonging.set()
            assert given_back.wait(60)
        return claim(name, member, seconds, by)

    monkeypatch.setattr(router.store, "claim", slow)
    monkeypatch.setattr(Locks, "lasts", 0.9)
    with mine.holding("a"):
        assert prolonging.wait(60)
    monkeypatch.setattr(Locks, "lasts", 600)
    given_back.set()
    eventually(lambda: not has_lock(router.store, "a"))
    eventually(lambda: not mine._renewing)
    assert not has_lock(router.store, "a")


def test_a_store_that_is_away_for_a_while_ends_no_run(router, brief, monkeypatch):
    mine, asked = Locks(router.store), threading.Event()

    def away(*args, **kwargs):
        asked.set()
        raise StoreUnavailable("gone")

    with mine.holding("a"), monkeypatch.context() as patch:
        patch.setattr(router.store, "claim", away)
        patch.setattr(router.store, "release", away)
        assert asked.wait(60)


def test_of_many_runs_one_is_inside(router, monkeypatch):
    monkeypatch.setattr(Locks, "patience", 60.0)
    inside, most = [], []

    def run(number):
        with Locks(router.store).holding("a"):
            inside.append(number)
            most.append(len(inside))
            time.sleep(0.01)
            inside.remove(number)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert most == [1] * 6


def migrate_all(*arguments):
    out = io.StringIO()
    try:
        call_command("migrate_all", "--exclude-reserved-aliases", "--verify", *arguments, stdout=out)
    except CommandError as error:
        return out.getvalue() + str(error)
    return out.getvalue()


def test_a_run_leaves_alone_whom_another_run_works_on(two, brief):
    with Locks(two.runtime.store).holding("a.test_default"):
        shown = migrate_all()
    assert "a.test_default (django_orm): FAILED Locked: another run works on 'a.test_default'" in shown
    assert "b.test_default (django_orm): ok" in shown
    assert "FAILED" not in migrate_all()


@pytest.mark.parametrize("options", [{}, {"OPTIONS": {"pool": True}}], ids=["alone", "pool"])
def test_the_database_itself_keeps_others_out(on_postgres, brief, options):
    databases = on_postgres(**options)
    databases.server.create_database(databases.name("a"))
    databases.put("a.test", "a")
    with databases.server.connect(databases.name("a")) as plain:
        assert plain.execute("SELECT pg_try_advisory_lock(7274116905418530421)").fetchone() == (True,)
        shown = migrate_all()
        assert "FAILED Locked: somebody else migrates the database of 'a.test_default' now: nothing was done" in shown
        assert plain.execute("SELECT count(*) FROM pg_tables WHERE tablename LIKE 'app_%'").fetchone() == (0,)
        plain.execute("SELECT pg_advisory_unlock(7274116905418530421)")
    assert "FAILED" not in migrate_all()
    with databases.server.connect(databases.name("a")) as plain:  # given back, whatever became of the session
        ask = "SELECT pg_try_advisory_lock(7274116905418530421)"
        eventually(lambda: plain.execute(ask).fetchone() == (True,))
