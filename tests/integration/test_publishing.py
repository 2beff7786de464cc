"""Writing to the store: lost answers, races, records that lead to another database, and what is served after it."""

import io
import json
import re
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.test import Client

from tenant_router.config_store import codec
from tenant_router.config_store.base import ACTIVE, DELETED, MAX_BODY, PROVISIONING, SUSPENDED, Op
from tenant_router.exceptions import Conflict, EpochChanged, StoreUnavailable
from tenant_router.fleet import SelectionError
from tenant_router.lifecycle import PartlyCommitted, StateRefused, Unconfirmed, Writer, commits
from tenant_router.managers import tenant_context_manager
from tests.proxy import Proxy


@pytest.fixture
def load(tenants, tmp_path):
    """A function that loads records with ``load_tenant_config`` and returns what it printed."""

    def run(records, *options, **metadata):
        file = tmp_path / "tenant_config.json"
        sections = {tenant_id: {tenants.runtime.conf.service: record} for tenant_id, record in records.items()}
        file.write_text(json.dumps({"mapping_metadata": metadata, "tenant_config": sections}))
        out = io.StringIO()
        call_command("load_tenant_config", "-f", str(file), *options, stdout=out)
        return out.getvalue()

    return run


@pytest.fixture
def state(tenants):
    """A function: the state letter and the revision that the store has for a tenant."""

    def of(tenant_id):
        found = tenants.runtime.store.get_many([tenant_id]).get(tenant_id)
        return (found.state, found.rev) if found else None

    return of


def tables(path):
    if not Path(path).exists():
        return set()
    with closing(sqlite3.connect(path)) as plain:
        return {row[0] for row in plain.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def name_of(record):
    return record["orm_config"]["django_orm"]["default"]["NAME"]


# --- suspend, resume, drain ---


def test_each_state_answers_as_documented_and_leads_where_it_should(tenants):
    tenants.put("a.test")
    client = Client(headers={"host": "a.test"})
    writer = Writer(tenants.runtime)

    def changed(command):
        out = io.StringIO()
        call_command("tenant", command, "a.test", stdout=out)
        tenants.arrived("a.test", writer.record("a.test").rev)
        return out.getvalue(), client.get("/whoami/").status_code

    assert changed("suspend") == ("a.test is suspended at revision 3\n", 503)
    assert changed("drain") == ("a.test is draining at revision 4\n", 410)
    assert changed("suspend")[1] == 503
    assert changed("resume") == ("a.test is active at revision 6\n", 200)
    assert changed("drain")[1] == 410
    assert changed("resume")[1] == 200
    assert changed("resume") == ("a.test is active already, nothing changed\n", 200)
    assert writer.record("a.test").rev == 8


@pytest.mark.parametrize("command", ["suspend", "resume", "drain"])
def test_a_tenant_that_was_never_active_is_left_to_its_migration(tenants, state, command):
    tenants.put("a.test", state=PROVISIONING)
    with pytest.raises(StateRefused, match=r"is provisioning and cannot become .*--migrate"):
        call_command("tenant", command, "a.test")
    assert state("a.test") == (PROVISIONING, 2)


@pytest.mark.parametrize("command", ["suspend", "resume", "drain", "delete"])
def test_who_does_not_exist_is_named(tenants, command):
    tenants.put("a.test")
    tenants.delete("a.test")
    options = ["--yes"] if command == "delete" else []
    for tenant_id, what in (("a.test", "'a.test' was deleted"), ("b.test", "no tenant 'b.test'"), ("@meta", "@meta")):
        with pytest.raises(SelectionError, match=what):
            call_command("tenant", command, tenant_id, *options)


def test_a_race_with_another_writer_is_told(tenants, state):
    tenants.put("a.test")
    plan = Writer(tenants.runtime).plan_state(["a.test"], SUSPENDED)
    tenants.put("a.test", tenants.record("other"))
    with pytest.raises(Conflict, match="was changed by somebody else meanwhile: it is at revision 3, not 2"):
        Writer(tenants.runtime).commit(plan)
    tenants.delete("a.test")
    with pytest.raises(Conflict, match="meanwhile: it was deleted and is not at revision 2"):
        Writer(tenants.runtime).commit(plan)
    assert state("a.test") is None


# --- a commit whose answer was lost ---


class Losing:
    """A store that, for the first ``times`` commits, writes and does not answer, or does not even write."""

    def __init__(self, store, monkeypatch, times, writes=True):
        self.left, self._commit, self._writes = times, store.commit, writes
        monkeypatch.setattr(store, "commit", self.commit)
        monkeypatch.setattr(commits, "INSIST", 0.3)

    def commit(self, ops, **options):
        if self.left > 0:
            self.left -= 1
            if self._writes:
                self._commit(ops, **options)
            raise StoreUnavailable("no answer")
        return self._commit(ops, **options)


def test_it_is_asked_for_again_and_has_one_effect(tenants, monkeypatch):
    tenants.put("a.test")
    losing = Losing(tenants.runtime.store, monkeypatch, times=2)
    assert Writer(tenants.runtime).set_state(["a.test"], SUSPENDED) == 3
    assert (losing.left, tenants.runtime.store.head().rev) == (0, 3)


def test_through_a_real_connection(fresh_runtime, redis_server, monkeypatch):
    from django.test import override_settings

    from tests.settings import TENANT_ROUTER_CONFIG_STORE_SETTINGS as settings
    from tests.tenants import Tenants

    proxy = Proxy(redis_server.port)
    location = {"HOST": "127.0.0.1", "PORT": proxy.port, "DB": 6}
    store = {**settings, "BACKEND": "tenant_router.config_store.backends.redis.RedisStore", "LOCATION": location}
    with override_settings(TENANT_ROUTER_CONFIG_STORE_SETTINGS=store, TENANT_ROUTER_SERVICE_NAME="lost"):
        runtime = fresh_runtime()
        Tenants(runtime, Path("/nowhere")).put("a.test")
        lost = []
        run = runtime.store._commit

        def loses_both_answers(*arguments):
            if len(lost) < 3:
                lost.append(1)
                proxy.lose_answer_to = b"EVALSHA"
            return run(*arguments)

        monkeypatch.setattr(runtime.store, "_commit", loses_both_answers)
        assert Writer(runtime).set_state(["a.test"], SUSPENDED) == 2
        assert (len(lost), runtime.store.head().rev) == (3, 2)
    proxy.close()


def test_a_store_that_can_only_be_read_since_tells_whether_it_was_written(tenants, monkeypatch):
    tenants.put("a.test")
    writes = Losing(tenants.runtime.store, monkeypatch, times=1)
    commit = writes.commit

    def once(ops, **options):
        if writes.left:
            return commit(ops, **options)
        raise StoreUnavailable("is a read-only replica")

    monkeypatch.setattr(tenants.runtime.store, "commit", once)
    assert Writer(tenants.runtime).set_state(["a.test"], SUSPENDED) == 3
    with pytest.raises(StoreUnavailable, match=r"read-only replica \(nothing was written\)"):
        Writer(tenants.runtime).set_state(["a.test"], ACTIVE)
    with pytest.raises(StoreUnavailable, match=r"\(nothing was written\)"):
        Writer(tenants.runtime).set_state(["a.test"], DELETED)
    assert tenants.runtime.store.head().rev == 3


def test_a_store_that_is_gone_leaves_it_open(tenants, monkeypatch):
    tenants.put("a.test")
    plan = Writer(tenants.runtime).plan_state(["a.test"], SUSPENDED)
    Losing(tenants.runtime.store, monkeypatch, times=1000)

    def gone(*arguments):
        raise StoreUnavailable("no answer")

    monkeypatch.setattr(tenants.runtime.store, "index", gone)
    began = time.monotonic()
    with pytest.raises(Unconfirmed, match="is not known: run the command again"):
        Writer(tenants.runtime).commit(plan)
    assert time.monotonic() - began < 30


def test_the_first_chunk_of_a_history_is_not_called_unwritten(router, monkeypatch):
    monkeypatch.setattr(commits, "CHUNK", 2)
    heads = []

    def gone():
        heads.append(1)
        raise EpochChanged("another history")

    monkeypatch.setattr(router.store, "head", gone)
    ops = [Op(f"t{number}.test", ACTIVE, b"x", 0) for number in range(3)]
    with pytest.raises(PartlyCommitted, match="stopped after 2 of 3 changes, at revision 3"):
        commits.commit(router.store, ops, None, lambda last: None)
    assert heads == [1]


# --- records of the largest size ---


@pytest.mark.parametrize("serializer", ["json.JSONSerializer", "pickle.PickleSerializer"])
def test_a_record_that_is_too_large_is_refused_before_anything_is_written(load, tenants, monkeypatch, serializer):
    from django.utils.module_loading import import_string

    made = import_string(f"tenant_router.config_store.serializers.{serializer}")()
    monkeypatch.setattr(tenants.runtime, "serializer", made)
    monkeypatch.setattr(commits, "CHUNK", 1)  # each in a chunk of its own
    at = tenants.runtime.store.head().rev
    some = {**tenants.record("b.test"), "x-note": "x" * 1000}
    room = MAX_BODY - len(codec.encode("b.test", some, made))
    records = {"a.test": tenants.record("a.test"), "b.test": {**some, "x-note": "x" * (1001 + room)}}
    with pytest.raises(CommandError, match=r"^\$\.tenant_config\['b\.test'\]: .*262,145.*\(nothing was written\)$"):
        load(records)
    assert tenants.runtime.store.head().rev == at
    records["b.test"]["x-note"] = "x" * (1000 + room)
    load(records)  # what is not refused can be written, and read
    writer = Writer(tenants.runtime)
    assert writer.decoded("b.test", writer.record("b.test")) == records["b.test"]


# --- --migrate ---


def test_new_tenants_are_migrated_and_then_served(load, tenants, state):
    record = tenants.record("a.test")
    out = load({"a.test": record}, "--migrate", "-v0")
    assert out.splitlines()[-1] == "revision 4: 1 tenant active"
    assert state("a.test") == (ACTIVE, 4)
    assert "app_note" in tables(name_of(record))


def test_a_tenant_moves_when_its_new_database_is_migrated(load, tenants, state, monkeypatch):
    old, new = tenants.record("old"), tenants.record("new")
    load({"a.test": old}, "--migrate", "-v0")
    at, seen = state("a.test"), []

    def migrated(self, contexts):
        seen.append((state("a.test"), [str(one.parts["django_orm"]["default"].settings["NAME"]) for one in contexts]))
        return run(self, contexts)

    from tenant_router.management.migrating import Migration

    run = Migration.run
    monkeypatch.setattr(Migration, "run", migrated)
    out = load({"a.test": new}, "--migrate")
    assert "changed   a.test (another database)" in out
    assert seen == [(at, [name_of(new)])]  # not published yet
    assert re.fullmatch(r"revision \d+: 1 tenant moved", out.splitlines()[-1])
    assert "app_note" in tables(name_of(new))
    tenants.arrived("a.test", state("a.test")[1])
    assert str(tenant_context_manager.get_by_id("a.test").parts["django_orm"]["default"].settings["NAME"]) == name_of(
        new
    )


def test_a_tenant_whose_new_database_cannot_be_migrated_stays_where_it_is(load, tenants, state):
    load({"a.test": tenants.record("old"), "b.test": tenants.record("b")}, "--migrate", "-v0")
    at = state("a.test")
    records = {"a.test": tenants.record("no/such/folder"), "b.test": {**tenants.record("b"), "labels": ["x"]}}
    with pytest.raises(CommandError, match=r"still on their old databases.*: a\.test$"):
        load(records, "--migrate", "-v0")
    assert state("a.test") == at
    assert state("b.test")[1] > at[1]  # which leads where it did, and waits for nobody


def test_a_suspended_tenant_moves_and_stays_suspended(load, tenants, state):
    load({"a.test": tenants.record("old")}, "--migrate", "-v0")
    call_command("tenant", "suspend", "a.test")
    load({"a.test": tenants.record("new")}, "--migrate", "-v0")
    assert state("a.test")[0] == SUSPENDED
    assert "app_note" in tables(name_of(tenants.record("new")))


@pytest.mark.parametrize("moves", [False, True], ids=["new", "moved"])
def test_what_was_changed_while_it_was_migrated_is_not_published(load, tenants, state, monkeypatch, moves):
    if moves:
        load({"a.test": tenants.record("old"), "b.test": tenants.record("b-old")}, "--migrate", "-v0")
    from tenant_router.management.migrating import Migration

    run = Migration.run

    def changed_meanwhile(self, contexts):
        run(self, contexts)
        tenants.put("a.test", tenants.record("third"), state="A" if moves else "P")

    monkeypatch.setattr(Migration, "run", changed_meanwhile)
    with pytest.raises(CommandError, match=r"changed by somebody else meanwhile and left as they are: a\.test"):
        load({"a.test": tenants.record("new"), "b.test": tenants.record("b-new")}, "--migrate", "-v0")
    held = Writer(tenants.runtime)
    assert name_of(held.decoded("a.test", held.record("a.test"))) == name_of(tenants.record("third"))
    assert state("a.test")[0] == ("A" if moves else "P")
    assert state("b.test")[0] == "A"
    assert name_of(held.decoded("b.test", held.record("b.test"))) == name_of(tenants.record("b-new"))


def test_no_two_records_of_the_store_have_one_database_at_any_time(load, tenants, state, monkeypatch):
    """a.test leaves "one" to b.test, which is new, c.test is provisioning and leaves "three" to d.test, for "two"."""
    load({"a.test": tenants.record("one"), "b0.test": tenants.record("two")}, "--migrate", "-v0")
    tenants.put("c.test", tenants.record("three"), state=PROVISIONING)
    wanted = {
        "a.test": "free",
        "b.test": "one",
        "b0.test": "other",
        "c.test": "two",
        "d.test": "three",
    }
    found, commit = [], tenants.runtime.store.commit

    def watched(ops, **kwargs):
        revision = commit(ops, **kwargs)
        held = Writer(tenants.runtime)
        live = held.records([*wanted])
        found.append([name_of(held.decoded(tenant_id, record)) for tenant_id, record in live.items()])
        return revision

    monkeypatch.setattr(tenants.runtime.store, "commit", watched)
    out = load({tenant_id: tenants.record(name) for tenant_id, name in wanted.items()}, "--migrate")
    assert all(len({*names}) == len(names) for names in found), found
    assert {state(tenant_id)[0] for tenant_id in wanted} == {ACTIVE}
    assert re.search(r"^revision \d+: 3 tenants active, 2 tenants moved$", out, re.MULTILINE), out
    for name in wanted.values():
        assert "app_note" in tables(name_of(tenants.record(name)))


def test_who_cannot_be_created_yet_is_named_as_that(load, tenants, state, monkeypatch):
    from tenant_router.management.migrating import Migration

    load({"a.test": tenants.record("one")}, "--migrate", "-v0")
    monkeypatch.setattr(Migration, "migrated", lambda self, tenant_id: tenant_id != "b.test")
    with pytest.raises(CommandError, match=r"^not loaded, because their migration failed: b\.test$"):
        load({"a.test": tenants.record("free"), "b.test": tenants.record("one")}, "--migrate", "-v0")
    assert (state("a.test")[0], state("b.test")) == (ACTIVE, None)


def test_who_leaves_a_database_is_written_before_who_takes_it(tenants):
    """A plan of more than one commit must not give a database to two tenants in between."""
    writer = Writer(tenants.runtime)
    writer.commit(writer.plan({"z.test": tenants.record("one"), "y.test": tenants.record("two")}, {}, flush=False))
    records = {"a.test": tenants.record("one"), "b.test": tenants.record("two"), "y.test": tenants.record("free")}
    plan = writer.plan(records, {}, flush=True)
    order = [op.tenant_id for op in plan.ops]
    assert order.index("z.test") < order.index("a.test")
    assert order.index("y.test") < order.index("b.test")


@pytest.mark.parametrize("fails", ["migration", "race"])
def test_nobody_takes_a_database_that_was_not_left(load, tenants, state, monkeypatch, fails):
    from tenant_router.management.migrating import Migration

    load({"a.test": tenants.record("one"), "b.test": tenants.record("two")}, "--migrate", "-v0")
    target = "no/such/folder" if fails == "migration" else "free"
    records = {"a.test": tenants.record(target), "b.test": tenants.record("one"), "c.test": tenants.record("two")}
    run, put = Migration.run, tenants.put

    def changed_meanwhile(self, contexts):
        run(self, contexts)
        if fails == "race":
            put("a.test", tenants.record("one"), state="S")

    monkeypatch.setattr(Migration, "run", changed_meanwhile)
    with pytest.raises(CommandError, match=r"because another tenant has not left them: b\.test, c\.test$"):
        load(records, "--migrate", "-v0")
    assert (state("b.test")[0], state("c.test")) == (ACTIVE, None)
    writer = Writer(tenants.runtime)
    held = [name_of(writer.decoded(name, writer.record(name))) for name in ("a.test", "b.test")]
    assert held == [name_of(tenants.record("one")), name_of(tenants.record("two"))]
    monkeypatch.setattr(Migration, "run", run)
    records["a.test"] = tenants.record("free")
    load(records, "--migrate", "-v0")
    assert {name: state(name)[0] for name in records} == {
        "a.test": ACTIVE if fails == "migration" else SUSPENDED,
        "b.test": ACTIVE,
        "c.test": ACTIVE,
    }
    assert name_of(writer.decoded("b.test", writer.record("b.test"))) == name_of(tenants.record("one"))


def test_what_failed_before_is_migrated_by_the_next_run(load, tenants, state):
    folder = tenants.directory / "later"
    records = {"a.test": tenants.record("later/a")}
    with pytest.raises(CommandError, match=r"still provisioning, because their migration failed: a\.test"):
        load(records, "--migrate", "-v0")
    assert state("a.test")[0] == PROVISIONING
    folder.mkdir()
    assert "1 tenant active" in load(records, "--migrate", "-v0")
    assert state("a.test")[0] == ACTIVE


def test_without_migrate_it_says_who_may_have_no_tables(load, tenants):
    said = "not migrated by this command (see --migrate, migrate_all): "
    assert f"{said}a.test, b.test\n" in load({"a.test": tenants.record("a"), "b.test": tenants.record("b")})
    out = load({"a.test": tenants.record("c"), "b.test": {**tenants.record("b"), "labels": ["x"]}})
    assert f"{said}a.test\n" in out
    assert "changed   b.test\n" in out
    assert said not in load({"a.test": tenants.record("c")})


def test_a_record_that_cannot_be_read_leads_nobody_knows_where(load, tenants):
    tenants.commit(Op("a.test", ACTIVE, b"garbage"))
    assert "changed   a.test (another database)" in load({"a.test": tenants.record("a")})


# --- one process ---


def test_migrate_all_sees_what_was_written_just_now(load, tenants, monkeypatch):
    tenants.put("z.test")
    tenants.arrived("z.test", 2)
    monkeypatch.setattr(tenants.runtime.reflector, "_take", lambda events, store: time.sleep(0.01))  # it is late
    load({"a.test": tenants.record("a")})
    tenants.delete("z.test")
    out = io.StringIO()
    call_command("migrate_all", "--exclude-reserved-aliases", stdout=out)
    assert out.getvalue() == "a.test_default (django_orm): ok\n"


# --- --dry-run ---


def test_a_dry_run_shows_what_differs_key_by_key(load, tenants):
    def record(**default):
        made = tenants.record("a")
        made["orm_config"]["django_orm"]["default"] |= default
        return made

    load({"a.test": record(PASSWORD="canary-1", CONN_MAX_AGE=0), "b.test": tenants.record("b")}, POSTGRES="x")
    out = load({"a.test": record(PASSWORD="canary-2", USER="ann"), "b.test": tenants.record("b")}, "--dry-run")
    assert "canary" not in out
    assert out.splitlines()[-7:] == [
        "mapping_metadata",
        '    mapping_metadata.POSTGRES: "x" -> -',
        "a.test",
        "    orm_config.django_orm.default.CONN_MAX_AGE: 0 -> -",
        '    orm_config.django_orm.default.PASSWORD: "***" -> "***"',
        '    orm_config.django_orm.default.USER: - -> "ann"',
        "dry run: 2 change(s), nothing was written",
    ]


def test_a_password_in_a_url_is_not_shown_by_a_dry_run(load, tenants):
    def record(secret):
        return {**tenants.record("a"), "cache_config": {"default": {"LOCATION": f"redis://u:{secret}@cache/1"}}}

    load({"a.test": record("canary-1")})
    out = load({"a.test": record("canary-2")}, "--dry-run")
    assert "canary" not in out
    assert 'cache_config.default.LOCATION: "redis://u:***@cache/1" -> "redis://u:***@cache/1"' in out
