"""Two who write to one store at once: whatever they do when, no two tenants come to one database."""

import pytest
from django.conf import settings as django_settings
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tenant_router.config_store.base import DELETED, META_ID, packed_state
from tenant_router.exceptions import Conflict, RecordInvalid
from tenant_router.lifecycle import PartlyCommitted, Plan, Writer, fence
from tenant_router.lifecycle.validation import Validation
from tenant_router.secrets import conceal_record


def record(name):
    return conceal_record({"orm_config": {"django_orm": {"default": {"NAME": name}}}})


def planned(router, metadata=None, **names):
    """A writer who has validated these tenants, and its plan."""
    writer = Writer(router)
    records = {f"{tenant_id}.test": record(name) for tenant_id, name in names.items()}
    return writer, writer.plan(records, metadata or {}, flush=False)


def shared(router):
    """What is wrong with the tenants of the store beside each other."""
    writer = Writer(router)
    live = [t for t, entry in writer.index().items() if packed_state(entry) != DELETED and t != META_ID]
    records = {t: writer.decoded(t, stored) for t, stored in writer.records(live).items()}
    return list(Validation(router).clashes(records, {}))


def names(router):
    writer = Writer(router)
    return {t for t, entry in writer.index().items() if packed_state(entry) != DELETED and t != META_ID}


@pytest.mark.parametrize("again", ["x.db", "y/../x.db", "file:x.db?mode=rw"])
def test_the_second_one_is_refused_however_it_spells_the_database(router, again):
    first, one = planned(router, a="x.db")
    second, other = planned(router, b=again)
    first.commit(one)
    with pytest.raises(RecordInvalid, match=r"b\.test.*names the database of tenant 'a\.test'"):
        second.commit(other)
    assert names(router) == {"a.test"}
    assert shared(router) == []


def test_a_change_to_a_database_that_somebody_else_takes_is_refused(router):
    first, one = planned(router, a="x.db")
    first.commit(one)
    first, one = planned(router, a="y.db")
    second, other = planned(router, b="y.db")
    second.commit(other)
    with pytest.raises(RecordInvalid, match=r"a\.test"):
        first.commit(one)
    assert shared(router) == []


def test_two_with_nothing_in_common_both_succeed(router):
    first, one = planned(router, a="x.db")
    second, other = planned(router, b="y.db")
    first.commit(one)
    assert second.commit(other) == router.store.head().rev
    assert names(router) == {"a.test", "b.test"}


def test_one_tenant_changed_by_both_is_a_conflict_as_before(router):
    first, one = planned(router, a="x.db")
    second, other = planned(router, a="y.db")
    first.commit(one)
    with pytest.raises(Conflict, match=r"a\.test"):
        second.commit(other)


def test_a_tenant_that_the_file_leaves_as_it_is_may_be_moved_by_somebody_else(router):
    first, one = planned(router, a="x.db")
    first.commit(one)
    first, one = planned(router, a="x.db", b="w.db")  # of which a.test is unchanged
    second, other = planned(router, a="w.db")
    second.commit(other)
    with pytest.raises(RecordInvalid, match=r"b\.test.*names the database of tenant 'a\.test'"):
        first.commit(one)
    assert shared(router) == []


def test_what_is_left_of_a_migration_clashes_with_what_somebody_else_made_of_the_rest(router):
    first, one = planned(router, a="x.db", b="y.db")
    first.commit(one)
    first = Writer(router)
    one = first.plan({"a.test": record("z.db"), "b.test": record("w.db")}, {}, flush=False, migrate=True)
    assert len(one.withheld) == 2
    second, other = planned(router, a="w.db")
    second.commit(other)
    with pytest.raises(RecordInvalid, match=r"b\.test.*names the database of tenant 'a\.test'"):
        first.commit_unchanged(Plan(ops=one.withheld, epoch=one.epoch), lambda left, stale: left)
    assert shared(router) == []


def _load(router, **names):
    writer, plan = planned(router, **names)
    writer.commit(plan)


def test_what_is_published_while_the_index_is_read_page_by_page_is_noticed(router, monkeypatch):
    first, one = planned(router, a="x.db")
    first.commit(one)
    second, other = planned(router, c="w.db")
    scan = router.store.scan

    def late(cursor, limit):
        """Redis returns pages in any order: here ``@meta`` comes last."""
        _, index = scan("", limit)
        if cursor:
            return "", {META_ID: index[META_ID]}
        if other.ops:
            monkeypatch.setattr(router.store, "scan", scan)
            second.commit(other)
            other.ops.clear()
            monkeypatch.setattr(router.store, "scan", late)
        return "last", {tenant_id: entry for tenant_id, entry in index.items() if tenant_id != META_ID}

    monkeypatch.setattr(router.store, "scan", late)
    with pytest.raises(RecordInvalid, match=r"b\.test.*names the database of tenant 'c\.test'"):
        _load(router, b="w.db")
    assert shared(router) == []


def test_a_later_chunk_clashes_with_what_somebody_else_made_of_an_earlier_one(router, monkeypatch):
    monkeypatch.setattr("tenant_router.lifecycle.commits.CHUNK", 2)
    first, one = planned(router, a="x.db", b="w.db")
    second = []

    def meanwhile(revision):
        if not second:
            second.append(planned(router, a="w.db"))
            writer, plan = second[0]
            writer.commit(plan)

    with pytest.raises(PartlyCommitted, match=r"b\.test.*names the database of tenant 'a\.test'"):
        first.commit(one, meanwhile)
    assert shared(router) == []


def test_metadata_changed_by_both_is_a_conflict_and_by_one_is_none(router):
    first, one = planned(router)
    first.commit(one)
    first, one = planned(router, {"A": "orm_config_django_orm_default"}, a="x.db")
    second, other = planned(router, b="y.db")
    third, another = planned(router, {"B": "orm_config_django_orm_default"}, c="z.db")
    first.commit(one)
    with pytest.raises(Conflict, match="mapping_metadata"):
        third.commit(another)
    second.commit(other)
    assert names(router) == {"a.test", "b.test"}
    stored = router.store.get_many([META_ID])[META_ID]
    assert second.decoded(META_ID, stored) == {"mapping_metadata": {"A": "orm_config_django_orm_default"}}


def test_each_chunk_of_a_large_load_stands_on_the_one_before(router, monkeypatch):
    monkeypatch.setattr(fence, "CHUNK", 2)
    monkeypatch.setattr("tenant_router.lifecycle.commits.CHUNK", 2)
    writer, plan = planned(router, **{f"t{number}": f"{number}.db" for number in range(5)})
    writer.commit(plan)
    assert len(names(router)) == 5
    writer, plan = planned(router, **{f"u{number}": f"u{number}.db" for number in range(5)})
    other, rival = planned(router, rival="u3.db")

    def between(revision, once=[rival]):  # noqa: B006 - the first chunk only
        if once:
            other.commit(once.pop())

    with pytest.raises(PartlyCommitted, match=r"u3\.test.*run the command again"):
        writer.commit(plan, between)
    assert shared(router) == []
    assert "rival.test" in names(router)


@pytest.fixture
def quiet(fresh_runtime):
    """A runtime whose thread does not run: it asks for random numbers, which Hypothesis does not like."""
    return fresh_runtime()


TENANTS, DATABASES = ["a", "b", "c"], ["1.db", "x/../1.db", "2.db"]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["plan", "commit"]), st.integers(0, 1), st.sampled_from(TENANTS), st.sampled_from(DATABASES)
    ),
    min_size=4,
    max_size=14,
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_in_no_order_of_events_two_tenants_share_a_database(quiet, steps):
    router = quiet
    for tenant_id in names(router):
        Writer(router).set_state([tenant_id], DELETED)
    plans = {}
    for step, who, tenant, database in steps:
        try:
            if step == "plan":
                plans[who] = planned(router, **{tenant: database})
            elif who in plans:
                writer, plan = plans.pop(who)
                writer.commit(plan) if plan.ops else None
        except (RecordInvalid, Conflict):
            pass
        assert shared(router) == []


def test_a_reserved_database_is_nobodys(router, tmp_path, monkeypatch):
    central = {**django_settings.DATABASES["central"], "NAME": str(tmp_path / "central.db")}
    monkeypatch.setitem(router.orms["django_orm"]._reserved, "central", central)
    for spelt in ("central.db", "x/../central.db"):
        with pytest.raises(RecordInvalid, match="reserved alias 'central'"):
            planned(router, a=str(tmp_path / spelt))
