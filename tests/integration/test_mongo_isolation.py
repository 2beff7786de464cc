"""Both libraries: tenants' documents stay apart, while everything else goes on at once."""

import asyncio
import gc
import io
import logging
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from asgiref.sync import sync_to_async
from django.core.management import call_command

from tenant_router import context as _context
from tenant_router import lifecycle
from tenant_router.context_decorators import carry_tenant, tenant_context_bind
from tenant_router.exceptions import (
    RealDatabase,
    RecordInvalid,
    TenantContextMissing,
    TenantMisconfigured,
    TenantSuspended,
)
from tenant_router.managers import tenant_context_manager
from tenant_router.tenant_context import DeniedContext
from tenant_router.testing.databases import create_of_orms, destroy_of_orms
from tenant_router.testing.mode import TestMode
from tenant_router.testing.orm_databases import Wishes
from tests.fixtures_mongo import QUIET
from tests.fixtures_orm import database_of
from tests.integration.test_fork import in_fork
from tests.tenants import eventually

pytestmark = [
    *(pytest.mark.filterwarnings(rule) for rule in QUIET),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]
CANARY = "canary-Pa55word"
PATIENT = {"serverSelectionTimeoutMS": 30_000, "connectTimeoutMS": 30_000}  # with a server that has just begun


def texts(project, tenant_id):
    with tenant_context_bind(tenant_id):
        return project.models.texts()


def test_each_tenant_finds_its_own_documents(documents):
    assert (texts(documents, "a.test"), texts(documents, "b.test")) == (["a.test"], ["b.test"])


def test_a_bound_tenant_inside_another_is_found_alone(documents):
    with tenant_context_bind("a.test"):
        with tenant_context_bind("b.test"):
            assert documents.models.texts() == ["b.test"]
        assert documents.models.texts() == ["a.test"]


def test_without_a_tenant_nothing_is_read(documents):
    with pytest.raises(TenantContextMissing, match="'default'"):
        documents.models.texts()
    with pytest.raises(TenantContextMissing):
        documents.models.add("nobody's")
    with ThreadPoolExecutor(1) as pool:
        with pytest.raises(TenantContextMissing):
            pool.submit(documents.models.texts).result()
        with tenant_context_bind("a.test"):
            assert pool.submit(documents.models.texts).result() == ["a.test"]
            carried = carry_tenant(documents.models.texts)
        assert pool.submit(carried).result() == ["a.test"]


def test_a_tenant_that_could_not_be_bound_says_why(documents):
    before = _context.enter(DeniedContext("a.test", TenantSuspended("tenant 'a.test' is suspended", "a.test")))
    try:
        with pytest.raises(TenantSuspended):
            documents.models.texts()
    finally:
        _context.leave(before)


def test_threads_and_live_changes(documents):
    """Eight threads work for tenants that come, move and go meanwhile: nobody sees a stranger's document."""
    stop, strangers, served = threading.Event(), [], []

    def work(seed):
        choose = random.Random(seed)
        while not stop.is_set():
            tenant_id = choose.choice(["a.test", "b.test"])
            with tenant_context_bind(tenant_id):
                documents.models.add(tenant_id)
                found = set(documents.models.texts())
                if found != {tenant_id}:
                    strangers.append((tenant_id, found))
            served.append(tenant_id)

    with ThreadPoolExecutor(8) as pool:
        running = [pool.submit(work, seed) for seed in range(8)]
        try:
            for turn in range(12):
                documents.put("a.test", f"a{turn}", OPTIONS={"appName": f"app{turn % 3}"})
                documents.put("b.test", f"b{turn}")
                documents.put(f"c{turn}.test", f"c{turn}")
                documents.tenants.delete(f"c{turn}.test")
                threading.Event().wait(0.1)
            eventually(lambda: ended(running) or (len(served) > 100 and len(set(served)) == 2), 60)
        finally:
            stop.set()
        for each in running:
            each.result()
    assert strangers == []
    assert {"a.test", "b.test"} == set(served)


def ended(running):
    """Whether one of those that work until they are told to stop has failed."""
    return any(each.done() for each in running)


async def test_an_asyncio_crowd_and_live_changes(documents):
    async def visit(number):
        tenant_id = "a.test" if number % 2 else "b.test"
        async with tenant_context_bind(tenant_id):
            await asyncio.sleep(0)
            await sync_to_async(documents.models.add, thread_sensitive=number % 3 == 0)(tenant_id)
            await asyncio.sleep(random.random() / 100)
            found = await sync_to_async(documents.models.texts, thread_sensitive=number % 3 == 0)()
            assert set(found) == {tenant_id}

    async def change():
        for turn in range(5):
            await asyncio.to_thread(documents.put, "a.test", f"a{turn}")
            await asyncio.sleep(0.05)

    await asyncio.gather(change(), *(visit(number) for number in range(100)))


def test_two_servers(documents, other_mongo):
    documents.put("b.test", "b", HOST="127.0.0.1", PORT=other_mongo.port, OPTIONS=PATIENT)
    assert texts(documents, "b.test") == []
    with tenant_context_bind("b.test"):
        documents.models.add("there")

    def work(number):
        tenant_id, expected = [("a.test", ["a.test"]), ("b.test", ["there"])][number % 2]
        assert texts(documents, tenant_id) == expected

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(400)))
    assert documents.manager.clients.open_count() == 2


@pytest.fixture
def moving(documents, other_mongo):
    """A function that moves ``b.test`` to the one server or to the other, where different documents wait for it."""
    places = [("here", {}), ("there", {"HOST": "127.0.0.1", "PORT": other_mongo.port, "OPTIONS": PATIENT})]

    def move(turn):
        name, address = places[turn % 2]
        documents.put("b.test", f"b_{name}", **address)
        return name

    for turn in range(2):
        name = move(turn)
        with tenant_context_bind("b.test"):
            documents.models.add(name)
    with tenant_context_bind("a.test"):
        documents.models.add("a.test")
    return move


def _seen_within_one_unit(documents):
    """What two reads in a row find: the same, whatever is changed between them."""
    first, second = set(documents.models.texts()), set(documents.models.texts())
    assert first == second
    return first


def test_eight_threads_while_a_tenant_moves_between_two_servers(documents, moving):
    stop, seen = threading.Event(), {"a.test": [], "b.test": []}

    def work(number):
        tenant_id = ["a.test", "b.test"][number % 2]
        while not stop.is_set():
            with tenant_context_bind(tenant_id):
                seen[tenant_id].append(_seen_within_one_unit(documents))

    with ThreadPoolExecutor(8) as pool:
        running = [pool.submit(work, number) for number in range(8)]
        try:
            for turn in range(20):
                moving(turn)
                documents.put("c.test", f"c{turn}")
                documents.tenants.delete("c.test")
            for turn in range(2):  # on a busy machine, the moves were over before anybody had read
                moved_to = {moving(turn)}
                eventually(lambda place=moved_to: ended(running) or (seen["a.test"] and place in seen["b.test"]), 60)
        finally:
            stop.set()
        for each in running:
            each.result()
    assert {frozenset(found) for found in seen["a.test"]} == {frozenset({"a.test"})}
    assert {frozenset(found) for found in seen["b.test"]} == {frozenset({"here"}), frozenset({"there"})}


async def test_an_asyncio_crowd_while_a_tenant_moves_between_two_servers(documents, moving):
    seen = {"a.test": [], "b.test": []}

    async def visit(number):
        tenant_id = ["a.test", "b.test"][number % 2]
        async with tenant_context_bind(tenant_id):
            await asyncio.sleep(random.random() / 20)
            read = sync_to_async(_seen_within_one_unit, thread_sensitive=number % 3 == 0)
            seen[tenant_id].append(await read(documents))

    async def change():
        for turn in range(10):
            await asyncio.to_thread(moving, turn)

    await asyncio.gather(change(), *(visit(number) for number in range(100)))
    assert all(found == {"a.test"} for found in seen["a.test"])
    assert all(found in ({"here"}, {"there"}) for found in seen["b.test"])


def test_a_change_moves_all_databases_of_a_tenant_together(documents):
    """A reader that binds again and again never finds one database before a change and the other after it."""
    stop, torn = threading.Event(), []

    def read():
        while not stop.is_set():
            with tenant_context_bind("a.test"):
                mongo = documents.manager.database_of("default").database.name
                if not database_of("a.test").endswith(f"{mongo}.db"):
                    torn.append(mongo)

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for turn in range(100):
        documents.put("a.test", f"turn{turn}")
    stop.set()
    for thread in threads:
        thread.join()
    assert torn == []


def test_a_bad_record_is_refused_and_the_last_good_one_serves(documents, caplog):
    caplog.set_level(logging.DEBUG)
    revision = documents.tenants.put("a.test", documents.record("worse", PORT="x", USER="u", PASS=CANARY))
    documents.tenants.arrived("a.test", revision)
    refusal = tenant_context_manager.refusals["a.test"]
    assert f"orm_config.{documents.orm_id}.default.PORT: is no port number" in refusal.reason
    assert CANARY not in caplog.text + refusal.reason
    assert database_of("a.test").endswith("_a.db")
    assert texts(documents, "a.test") == ["a.test"]
    documents.put("a.test", "better")
    assert texts(documents, "a.test") == []


def test_a_tenant_whose_only_record_is_bad_is_misconfigured(documents):
    revision = documents.tenants.put("c.test", documents.record("c", CONN_URL=f"mongodb://u:{CANARY}@h/x"))
    documents.tenants.arrived("c.test", revision)
    with pytest.raises(TenantMisconfigured) as found, tenant_context_bind("c.test"):
        pass
    assert "CONN_URL: and NAME cannot both be given" in str(found.value)
    assert CANARY not in str(found.value)


def test_a_record_that_lacks_the_alias_is_refused(documents):
    record = documents.record("c")
    record["orm_config"][documents.orm_id] = {}
    revision = documents.tenants.put("c.test", record)
    documents.tenants.arrived("c.test", revision)
    with pytest.raises(TenantMisconfigured, match="default"), tenant_context_bind("c.test"):
        pass


def test_two_tenants_with_one_database_are_refused_unless_allowed(mongo_project, documents):
    twins = {"c.test": documents.record("same"), "d.test": documents.record("same".upper())}
    twins["c.test"]["orm_config"]["django_orm"]["default"]["NAME"] += "c"
    with pytest.raises(RecordInvalid) as found:
        lifecycle.Writer(documents.runtime).plan(twins, {}, flush=False)
    ((path, what),) = found.value.problems
    assert path.endswith(f"['d.test'].tests.orm_config.{documents.orm_id}.default")
    assert "names the database of tenant 'c.test'" in what
    with pytest.raises(RecordInvalid, match=r"names the database of tenant .a\.test."):
        lifecycle.Writer(documents.runtime).plan({"c.test": documents.record("a")}, {}, flush=False)
    allowing = mongo_project(documents.orm_id, ALLOW_SHARED_DATABASES=True)
    assert lifecycle.Writer(allowing.runtime).plan(twins, {}, flush=False).ops


def test_no_secret_is_shown(documents, caplog):
    caplog.set_level(logging.DEBUG)
    secret = {"USER": "u", "PASS": CANARY, "OPTIONS": {"serverSelectionTimeoutMS": 500}}
    documents.put("a.test", "a", **secret)
    with tenant_context_bind("a.test") as context:
        database = documents.manager.database_of("default").database
        shown = [context, context.parts, context.parts[documents.orm_id], database, database.client, database["x"]]
        with pytest.raises(Exception) as found:  # whatever a server says that has no such user
            documents.models.texts()
        shown += [found.value, found.value.__cause__, found.value.__context__]
    assert CANARY not in "".join(map(repr, shown)) + "".join(map(str, shown)) + caplog.text


def test_migrate_all_creates_the_indexes_of_every_tenant(documents):
    out = io.StringIO()
    call_command("migrate_all", "--exclude-reserved-aliases", stdout=out)
    assert f"a.test_default ({documents.orm_id}): ok" in out.getvalue()
    for tenant_id in ("a.test", "b.test"):
        with tenant_context_bind(tenant_id):
            database = documents.manager.database_of("default").database
            assert "by_text" in database["note"].index_information()
            if documents.orm_id == "mongoengine_orm":
                assert len(database["bare"].index_information()) == 2


def test_migrate_all_shows_a_plan_and_changes_nothing(mongo_project, documents):
    documents.put("c.test", "c")
    out = io.StringIO()
    call_command("migrate_all", "--plan", "--tenant-id", "c.test", stdout=out)
    assert f"c.test_default ({documents.orm_id}): would create the indexes of tests." in out.getvalue()
    with tenant_context_bind("c.test"):
        assert documents.manager.database_of("default").database.list_collection_names() == []


def test_migrate_all_goes_on_past_a_database_that_fails(documents):
    unreachable = {"HOST": "127.0.0.1", "PORT": 1, "OPTIONS": {"serverSelectionTimeoutMS": 100}}
    documents.put("a.test", "a", **unreachable)
    out = io.StringIO()
    with pytest.raises(Exception, match=rf"a\.test_default \({documents.orm_id}\)"):
        call_command("migrate_all", "--exclude-reserved-aliases", stdout=out)
    assert f"b.test_default ({documents.orm_id}): ok" in out.getvalue()


def test_a_forked_child_reads_its_tenants_documents_and_so_does_the_parent(documents):
    assert texts(documents, "a.test") == ["a.test"]
    assert in_fork(texts, documents, "a.test") == "['a.test']"
    assert in_fork(texts, documents, "b.test") == "['b.test']"
    assert texts(documents, "a.test") == ["a.test"]


def test_a_child_that_is_forked_inside_a_unit_of_work_is_unbound_and_its_parent_goes_on(documents):
    with tenant_context_bind("b.test"):
        notes = documents.models.notes()
        assert documents.models.texts() == ["b.test"]
        assert "TenantContextMissing" in in_fork(documents.models.texts)
        assert in_fork(carry_tenant(documents.models.texts)) == "['b.test']"
        assert [note.text for note in notes] == ["b.test"]


def test_a_deleted_tenant_is_gone(documents):
    documents.tenants.delete("a.test")
    eventually(lambda: not tenant_context_manager.contains("a.test"))
    assert texts(documents, "b.test") == ["b.test"]


def test_in_a_test_run_the_test_tenant_is_found_where_nothing_is_bound(mongo_project, documents, mongo_url):
    name = documents.name("testrun")
    project = mongo_project(documents.orm_id, default={"CONN_URL": f"{mongo_url}/{name}"})
    mode = TestMode()
    mode.begin()
    try:
        with pytest.raises(RealDatabase):  # not yet
            project.models.texts()
        gc.collect()  # PyMongo's frames, of which the error is a part, hold the client
        create_of_orms(mode, [""], Wishes())
        project.models.add("x")
        assert project.models.texts() == ["x"]
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(project.models.texts).result() == ["x"]
        assert project.manager.database_of("default").database.name.startswith(f"test_{name}_")
    finally:
        destroy_of_orms(mode, 0)
        mode.end()
    with pytest.raises(TenantContextMissing):
        project.models.texts()
