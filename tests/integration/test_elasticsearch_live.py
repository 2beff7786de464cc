"""Elasticsearch while tenants change, processes fork and servers hang."""

import asyncio
import gc
import os
import signal
import threading
import time
import weakref

import pytest

pytest.importorskip("elasticsearch", reason="the client of Elasticsearch is not installed")

from django.db import connections
from elastic_transport import ConnectionError, ConnectionTimeout

from tenant_router.context_decorators import tenant_context_bind
from tenant_router.exceptions import TenantContextMissing, TenantDeleted, TooManyConnections
from tenant_router.managers import tenant_context_manager
from tenant_router.orm_backends.es_orm import get_async_client, get_client, shared_client
from tenant_router.tenant_context import FixedContext
from tests.app.models import Note
from tests.fixtures_elasticsearch import url
from tests.fixtures_orm import create_tables
from tests.proxy import Proxy
from tests.tenants import eventually


def shared_of(tenant_id):
    with tenant_context_bind(tenant_id) as bound:
        return bound.parts["es_orm"]["default"].scope.shared


def fill(tenant_id, text=None):
    """One document in an index that it makes: that takes a busy node seconds, whatever the limit of the tenant."""
    with tenant_context_bind(tenant_id):
        patient = get_client().options(request_timeout=30)
        patient.index(index="books", id="1", document={"owner": text or tenant_id}, refresh=True)


def released(es, revision):
    """Wait until this process is done with a change, and nothing of it refers to what was before."""
    eventually(lambda: es.runtime.reflector.head.rev >= revision)


def owners():
    return {hit["_source"]["owner"] for hit in get_client().search(index="*")["hits"]["hits"]}


# --- one client for many ---


def test_ten_thousand_tenants_have_one_client(es_project):
    es = es_project()
    es.put(es.id("one"))
    sessions = [es.manager.prepare(f"t{number}", {}, None) for number in range(10_000)]
    clients = {session["default"].scope.shared for session in sessions}
    assert len(clients) == 1
    assert es.manager.pool.open() == []
    for number, session in enumerate(sessions[:50]):
        with tenant_context_bind(FixedContext(f"t{number}", 1, {"es_orm": session})):
            session["default"].client.count(index="nothing-here", ignore_unavailable=True)
    assert len(es.manager.pool.open()) == 1


def test_credentials_and_options_have_clients_of_their_own(es):
    configs = [{}, {"OPTIONS": {"api_key": "a"}}, {"OPTIONS": {"api_key": "b"}}, {"OPTIONS": {"max_retries": 1}}]
    sessions = [es.manager.prepare("x", {"default": config}, None)["default"] for config in configs * 2]
    assert len({session.scope.shared for session in sessions}) == len(configs)


def test_nothing_is_opened_before_it_is_used(es):
    assert not shared_of(es.a).is_open
    fill(es.a)
    assert shared_of(es.a).is_open


def elsewhere(es, **options):
    """The same node, by another client."""
    return {"OPTIONS": {"request_timeout": 30, **options}}


def test_a_client_is_closed_when_its_last_unit_ends(es_project):
    es = es_project()
    tenant_id = es.id("x")
    es.put(tenant_id)
    fill(tenant_id)
    with tenant_context_bind(tenant_id):
        old = shared_of(tenant_id)
        released(es, es.put(tenant_id, es.record("x", es=elsewhere(es))))
        assert old.is_open
        assert owners() == {tenant_id}
        assert shared_of(tenant_id) is old
        assert old.is_open
    assert not old.is_open
    assert shared_of(tenant_id) is not old
    fill(tenant_id)
    with tenant_context_bind(tenant_id):
        assert owners() == {tenant_id}


def test_a_client_that_another_tenant_uses_stays_open(es):
    fill(es.a)
    shared = shared_of(es.a)
    released(es, es.delete(es.a))
    assert shared.is_open
    with tenant_context_bind(es.b):
        get_client().count()
    released(es, es.delete(es.b))
    assert not shared.is_open


def test_an_unchanged_part_of_a_record_keeps_its_session(es):
    with tenant_context_bind(es.a) as before:
        pass
    es.put(es.a, es.record("elsewhere"))
    with tenant_context_bind(es.a) as after:
        assert after is not before
        assert after.parts["es_orm"]["default"] is before.parts["es_orm"]["default"]


def test_a_client_that_is_kept_is_refused_after_its_tenant_is_gone_and_leaves_nothing_open(es_project):
    es = es_project()
    tenant_id = es.id("x")
    es.put(tenant_id)
    fill(tenant_id)
    with tenant_context_bind(tenant_id) as bound:
        kept, shared = get_client(), bound.parts["es_orm"]["default"].scope.shared
    del bound
    released(es, es.delete(tenant_id))
    assert not shared.is_open
    with pytest.raises(TenantDeleted):
        kept.count(index="books")
    assert not shared.is_open


def test_sessions_go_without_the_garbage_collector(es):
    session = es.manager.prepare("x", {}, None)["default"]
    assert session.client is session.client
    gone = weakref.ref(session)
    gc.disable()
    try:
        del session
        assert gone() is None
    finally:
        gc.enable()


def test_open_clients_are_bounded(es_project):
    es = es_project(MAX_OPEN_CLIENTS=2)
    ids = [es.id(f"x{number}") for number in range(4)]
    for number, tenant_id in enumerate(ids):
        es.put(tenant_id, es.record(tenant_id, es=elsewhere(es, max_retries=number)))
        fill(tenant_id)
        assert len(es.manager.pool.open()) <= 2
    assert {client.cluster.options["max_retries"] for client in es.manager.pool.open()} == {2, 3}
    for tenant_id in ids:
        with tenant_context_bind(tenant_id):
            assert owners() == {tenant_id}


def test_when_all_clients_are_in_use(es_project, monkeypatch):
    monkeypatch.setattr(shared_client, "WAIT_FOR_CLIENT", 0.1)
    es = es_project(MAX_OPEN_CLIENTS=1)
    for number, name in enumerate(("x", "y")):
        es.put(es.id(name), es.record(name, es=elsewhere(es, max_retries=number)))
    with shared_of(es.id("x")).sync():
        with tenant_context_bind(es.id("y")), pytest.raises(TooManyConnections, match="MAX_OPEN_CLIENTS"):
            get_client().count()
    with tenant_context_bind(es.id("y")):
        get_client().count()


# --- live changes ---


def test_added_changed_and_deleted_with_the_databases(es):
    tenant_id = es.id("new")
    es.put(tenant_id, es.record("first", es={"INDEX_PREFIX": f"{tenant_id}-1-"}))
    create_tables(tenant_id)
    fill(tenant_id, "first")
    with tenant_context_bind(tenant_id):
        Note.objects.create(text="first")
        es.put(tenant_id, es.record("second", es={"INDEX_PREFIX": f"{tenant_id}-2-"}))
        assert (Note.objects.get().text, owners()) == ("first", {"first"})
    create_tables(tenant_id)
    with tenant_context_bind(tenant_id):
        assert (Note.objects.count(), owners()) == (0, set())
    es.put(tenant_id, es.record("first", es={"INDEX_PREFIX": "*"}))
    with tenant_context_bind(tenant_id):
        assert (Note.objects.count(), owners()) == (0, set())
    es.arrived(tenant_id, es.delete(tenant_id))
    with pytest.raises(TenantDeleted), tenant_context_bind(tenant_id):
        pass
    connections.close_all()


@pytest.fixture
def flipping(es):
    """Two tenants, each of which has two prefixes, with a document that says which."""
    es.both = {es.a: [f"{es.a}-{n}-" for n in "01"], es.b: [f"{es.b}-{n}-" for n in "01"]}
    for tenant_id, prefixes in es.both.items():
        for prefix in prefixes:
            es.put(tenant_id, es.record(tenant_id, es={"INDEX_PREFIX": prefix}))
            fill(tenant_id, prefix)
    return es


def flip(es, stop, enough, times=60):
    """Have both tenants move between their prefixes, and a third one come and go; then wait until it is ``enough``."""
    try:
        for number in range(times):
            for tenant_id, prefixes in es.both.items():
                options = elsewhere(es, max_retries=1 + number % 2) if number % 3 else {}
                es.put(tenant_id, es.record(tenant_id, es={"INDEX_PREFIX": prefixes[number % 2], **options}))
            if number % 2:
                es.put(es.id("guest"))
            else:
                es.arrived(es.id("guest"), es.delete(es.id("guest")))
            time.sleep(0.02)
        eventually(enough, 60)
    finally:
        stop.set()


def promised(bound):
    return bound.parts["es_orm"]["default"].scope.prefix


def test_eight_threads_while_the_records_change(flipping):
    stop, wrong, errors, units = threading.Event(), [], [], [0] * 8

    def work(number):
        tenant_id = list(flipping.both)[number % 2]
        late = get_client()
        try:
            while not stop.is_set():
                with tenant_context_bind(tenant_id) as bound:
                    own = {promised(bound)}
                    for client in (get_client(), late):
                        seen = {hit["_source"]["owner"] for hit in client.search()["hits"]["hits"]}
                        seen.add(client.get(index="books", id="1")["_source"]["owner"])
                        if seen != own or not promised(bound).startswith(tenant_id):
                            wrong.append((own, seen))
                units[number] += 1
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=[number]) for number in range(8)]
    for thread in threads:
        thread.start()
    flip(flipping, stop, lambda: errors or min(units) > 3)
    for thread in threads:
        thread.join(30)
    assert errors == []
    assert wrong == []
    assert len(flipping.manager.pool.open()) <= 3


async def test_an_asyncio_crowd_while_the_records_change(flipping):
    stop, wrong, units = threading.Event(), [], []
    late = get_async_client()

    async def work(number):
        tenant_id = list(flipping.both)[number % 2]
        while not stop.is_set():
            async with tenant_context_bind(tenant_id) as bound:
                own = {promised(bound)}
                client = late if number % 3 else get_async_client()
                first = await client.search()
                await asyncio.sleep(0)
                second = await client.get(index="books", id="1")
                seen = {hit["_source"]["owner"] for hit in first["hits"]["hits"]} | {second["_source"]["owner"]}
                if seen != own:
                    wrong.append((own, seen))
            units.append(number)

    changes = asyncio.to_thread(flip, flipping, stop, lambda: set(units) == set(range(40)))
    await asyncio.gather(changes, *(work(number) for number in range(40)))
    assert wrong == []
    assert all(len(client._async) <= 1 for client in flipping.manager.pool.open())


# --- fork ---


def in_a_child(function):
    """Run ``function`` in a forked child; what it returns, or the error's text."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.alarm(60)  # a child that hangs must not hold the test up
        try:
            said = repr(function())
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(writer, said.encode()[:4000])
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        said = pipe.read().decode()
    os.waitpid(pid, 0)
    return said


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_that_is_forked_after_use(es):
    fill(es.a)
    fill(es.b)
    shared = shared_of(es.a)
    parents = shared._client

    def ask():
        with tenant_context_bind(es.a):
            return owners(), get_client.__module__, shared._client is parents

    before = context_of(es.a)
    assert in_a_child(lambda: with_context(before, ask)) == repr(({es.a}, get_client.__module__, False))
    for _ in range(3):
        with tenant_context_bind(es.b):
            assert owners() == {es.b}
    assert shared._client is parents


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_that_is_forked_while_another_thread_holds_the_locks(es):
    fill(es.a)
    before, shared, held, done = context_of(es.a), shared_of(es.a), threading.Event(), threading.Event()

    def hold():
        with shared._making, es.manager.pool.lock:
            held.set()
            done.wait(120)

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(60)
    try:
        assert in_a_child(lambda: with_context(before, owners)) == repr({es.a})
    finally:
        done.set()
        holder.join()


def context_of(tenant_id):
    return tenant_context_manager.get_by_id(tenant_id)


def with_context(bound, function):
    with tenant_context_bind(bound):
        return function()


# --- a server that hangs, is gone, comes back ---


@pytest.fixture
def behind_a_proxy(es_project):
    """A tenant behind a proxy, and one that is not."""
    es = es_project()
    es.proxy = Proxy(int(url().rsplit(":", 1)[1]))
    es.bad, es.good = es.id("bad"), es.id("good")
    es.put(es.bad, es.record("bad", es=through(es.proxy, request_timeout=0.5)))
    es.put(es.good)
    fill(es.bad)
    fill(es.good)
    yield es
    es.proxy.go_on()
    es.proxy.stop()


def through(proxy, **options):
    """A tenant's cluster that is behind the proxy."""
    hosts = [f"http://127.0.0.1:{proxy.port}"]
    return {"HOSTS": hosts, "OPTIONS": {"connections_per_node": 2, **options}}


def timed(function):
    started = time.monotonic()
    try:
        return function(), time.monotonic() - started
    except Exception as error:
        return error, time.monotonic() - started


def ask(tenant_id):
    with tenant_context_bind(tenant_id):
        return owners()


def test_a_server_that_hangs(behind_a_proxy):
    es, results = behind_a_proxy, []
    es.proxy.pause()
    threads = [threading.Thread(target=lambda: results.append(timed(lambda: ask(es.bad)))) for _ in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    # 100 threads share two connections: whoever gets none waits as long, not for all the others, which takes 25 s
    assert [type(error) for error, _ in results] == [ConnectionTimeout] * 100
    assert max(seconds for _, seconds in results) < 12
    es.proxy.go_on()
    eventually(lambda: timed(lambda: ask(es.bad))[0] == {es.bad})


def test_a_server_that_hangs_keeps_nobody_waiting_who_has_another(behind_a_proxy):
    es, results, waiting = behind_a_proxy, [], behind_a_proxy.id("waiting")
    es.put(waiting, es.record("waiting", es=through(es.proxy, request_timeout=60)))
    es.proxy.pause()
    threads = [threading.Thread(target=lambda: results.append(ask(waiting))) for _ in range(12)]
    for thread in threads:
        thread.start()
    eventually(lambda: shared_of(waiting)._connections.free == 0)
    for _ in range(10):
        assert ask(es.good) == {es.good}
    assert results == []
    es.proxy.go_on()
    for thread in threads:
        thread.join(60)
    assert results == [set()] * 12


async def test_a_server_that_hangs_asynchronously(behind_a_proxy):
    es = behind_a_proxy

    async def found(tenant_id):
        async with tenant_context_bind(tenant_id):
            answer = await get_async_client().search()
            return {hit["_source"]["owner"] for hit in answer["hits"]["hits"]}

    es.proxy.pause()
    started = time.monotonic()
    many = [found(es.bad) for _ in range(10)] + [found(es.good) for _ in range(5)]
    results = await asyncio.gather(*many, return_exceptions=True)
    assert time.monotonic() - started < 30
    assert all(isinstance(result, ConnectionTimeout) for result in results[:10])
    assert results[10:] == [{es.good}] * 5
    es.proxy.go_on()
    for _ in range(60):
        try:
            assert await found(es.bad) == {es.bad}
            break
        except (ConnectionError, ConnectionTimeout):
            continue
    else:
        pytest.fail("it did not recover")


def test_a_server_that_restarts(behind_a_proxy):
    es = behind_a_proxy
    es.proxy.stop()
    found, seconds = timed(lambda: ask(es.bad))
    assert isinstance(found, ConnectionError)
    assert seconds < 8
    assert ask(es.good) == {es.good}
    es.proxy.start()
    eventually(lambda: timed(lambda: ask(es.bad))[0] == {es.bad})


def test_without_a_tenant_nothing_is_opened(es):
    with pytest.raises(TenantContextMissing):
        get_client().search()
    assert es.manager.pool.open() == []
