"""One query set that several tenants iterate: each has its own documents, and nobody another's memory of them."""

import copy
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

pytest.importorskip("pymongo")

from tenant_router.context_decorators import tenant_context_bind
from tenant_router.exceptions import TenantContextMissing, TenantMismatch
from tests.fixtures_mongo import QUIET

pytestmark = [pytest.mark.filterwarnings(rule) for rule in QUIET]
COUNTS = {"a.test": 250, "b.test": 130}  # more than MongoEngine reads at a time (100), and than a first batch (101)


@pytest.fixture(params=["pymodm_orm", "mongoengine_orm"])
def project(request, mongo_project):
    made = mongo_project(request.param)
    for tenant_id, count in COUNTS.items():
        made.put(tenant_id, tenant_id[0])
        with tenant_context_bind(tenant_id):
            notes = [made.models.module.Note(text=tenant_id, number=number) for number in range(count)]
            (made.models.module.Note.objects.insert if request.param == "mongoengine_orm" else bulk(made))(notes)
    return made


def bulk(project):
    return project.models.module.Note.objects.bulk_create


def whole(notes, tenant_id):
    with tenant_context_bind(tenant_id):
        found = [note.text for note in notes]
    assert found == [tenant_id] * COUNTS[tenant_id]


def kinds(project):
    """Query sets that were made by nobody (as in a module), and by a tenant; with and without a memory."""
    yield project.models.notes()
    if project.orm_id == "mongoengine_orm":
        yield project.models.notes().order_by("number")
    with tenant_context_bind("a.test"):
        found = [project.models.notes()]
        if project.orm_id == "mongoengine_orm":
            found += [project.models.notes().order_by("number"), project.models.notes().no_cache()]
    yield from found


def test_each_tenant_reads_its_own(project):
    for notes in kinds(project):
        for tenant_id in ("a.test", "b.test", "a.test", "b.test"):
            whole(notes, tenant_id)


def test_tenants_that_read_at_once(project):
    for notes in kinds(project):
        barrier = threading.Barrier(2)

        def read(tenant_id, notes=notes, barrier=barrier):
            barrier.wait()
            for _ in range(3):
                whole(notes, tenant_id)

        with ThreadPoolExecutor(2) as pool:
            list(pool.map(read, COUNTS))


def test_tenants_that_take_turns(project):
    """Two iterations of one query set, step by step: each goes on where it was."""
    for notes in kinds(project):
        begun = {}
        for tenant_id in COUNTS:
            with tenant_context_bind(tenant_id):
                begun[tenant_id] = iter(notes)
        for _ in range(120):
            for tenant_id, steps in begun.items():
                with tenant_context_bind(tenant_id):
                    assert next(steps).text == tenant_id


def test_an_iteration_is_refused_to_others_and_goes_on(project):
    for notes in kinds(project):
        if type(notes).__name__ == "QuerySetNoCache":
            continue  # it is its own iterator: below
        with tenant_context_bind("a.test"):
            steps = iter(notes)
        for read in (0, 5, 105):
            with tenant_context_bind("a.test"):
                for _ in range(read):
                    assert next(steps).text == "a.test"
            with tenant_context_bind("b.test"), pytest.raises(TenantMismatch):
                next(steps)
            with pytest.raises((TenantContextMissing, StopIteration)):
                next(steps)
            if project.orm_id == "pymodm_orm":
                break  # a generator, which has ended
        else:
            with tenant_context_bind("a.test"):
                assert len([*steps]) == COUNTS["a.test"] - 110


@pytest.fixture
def notes(mongo_project):
    """A query set of MongoEngine that was made while no tenant was bound."""
    made = mongo_project("mongoengine_orm")
    for tenant_id in COUNTS:
        made.put(tenant_id, tenant_id[0])
        with tenant_context_bind(tenant_id):
            made.models.module.Note.objects.insert(
                [made.models.module.Note(text=tenant_id) for _ in range(COUNTS[tenant_id] // 10)]
            )
    return made.models.module.Note.objects


def test_what_is_remembered_is_each_tenants(notes):
    for tenant_id in [*COUNTS, *COUNTS]:
        with tenant_context_bind(tenant_id):
            count = COUNTS[tenant_id] // 10
            assert len(notes) == count
            assert notes.count(with_limit_and_skip=True) == count
            assert notes[0].text == tenant_id
            assert {note.text for note in notes[2:5]} == {tenant_id}
            assert repr(notes)
            assert [note.text for note in copy.copy(notes)] == [tenant_id] * count
            assert [note.text for note in pickle.loads(pickle.dumps(notes))] == [tenant_id] * count
            assert next(notes.clone()).text == tenant_id


def test_nothing_is_read_without_a_tenant_whoever_has_read_it(notes):
    with tenant_context_bind("a.test"):
        made_by_a = notes.all()
        assert len(made_by_a) == 25
        assert len(notes) == 25
    for queryset in (notes, made_by_a):
        for use in (len, list, repr, next, lambda queryset: queryset.count(with_limit_and_skip=True)):
            with pytest.raises(TenantContextMissing):
                use(queryset)


def test_a_query_set_without_a_memory_is_one_tenants_while_it_is_read(notes):
    with tenant_context_bind("a.test"):
        reading = notes.no_cache()
        assert next(reading).text == "a.test"
    with tenant_context_bind("b.test"):
        with pytest.raises(TenantMismatch):
            next(reading)
        assert {note.text for note in reading} == {"b.test"}
    with tenant_context_bind("a.test"):
        assert next(reading).text == "a.test"
        assert len(list(reading)) == 25


def test_what_is_remembered_goes_with_the_query_set(notes):
    import gc

    with tenant_context_bind("a.test"):
        assert len(notes) == 25
        home = notes._collection._tr_resolve().database.client._tr_home
        kept = home.open().memo["querysets"]
        assert len(kept) == 1
    del notes
    gc.collect()
    assert len(kept) <= 1
