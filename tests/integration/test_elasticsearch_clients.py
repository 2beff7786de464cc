"""Clients of Elasticsearch: who waits for what while they are made, used and closed, and who does not."""

import asyncio
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

pytest.importorskip("elasticsearch", reason="the client of Elasticsearch is not installed")

from elastic_transport import ConnectionTimeout, Transport
from hypothesis import given, settings
from hypothesis import strategies as st

from tenant_router.context_decorators import tenant_context_bind
from tenant_router.exceptions import TooManyConnections
from tenant_router.managers import tenant_context_manager
from tenant_router.orm_backends.connection_shares import ConnectionShares
from tenant_router.orm_backends.es_orm import get_async_client, get_client, shared_client
from tenant_router.orm_backends.es_orm.client_pool import ClientPool
from tenant_router.orm_backends.es_orm.settings import Cluster
from tests.tenants import eventually


class Node(BaseHTTPRequestHandler):
    """Answers as Elasticsearch does; what is asked of ``slow`` indices waits for ``gate``."""

    protocol_version = "HTTP/1.1"
    gate = threading.Event()

    def do_GET(self):
        if "slow" in self.path:
            self.gate.wait(60)
        body = json.dumps({"found": True, "_source": {}}).encode()
        self.send_response(200)
        self.send_header("X-Elastic-Product", "Elasticsearch")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def node():
    """The address of a :class:`Node`."""
    Node.gate.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Node)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=[0.05])
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    Node.gate.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def silent():
    """The address of a node that accepts and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def ask(tenant_id, index="books"):
    with tenant_context_bind(tenant_id):
        return get_client().get(index=index, id="1")["found"]


async def ask_async(tenant_id, index="books"):
    async with tenant_context_bind(tenant_id):
        return (await get_async_client().get(index=index, id="1"))["found"]


@contextmanager
def running(*jobs):
    """Each of ``jobs`` in a thread of its own; what became of them, once they have ended."""
    ended = []

    def run(job):
        try:
            ended.append(job())
        except Exception as error:
            ended.append(error)

    threads = [threading.Thread(target=run, args=[job], daemon=True) for job in jobs]
    for thread in threads:
        thread.start()
    yield ended
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads), "it waits for ever"


def shared_of(tenant_id):
    return tenant_context_manager.get_by_id(tenant_id).parts["es_orm"]["default"].scope.shared


# --- making, sniffing, closing ---


class Standing(Transport):
    """A project's own transport, which takes its time: it is made, and closed, when the test says so."""

    begun, may_go_on, may_close = threading.Event(), threading.Event(), threading.Event()

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        if "standing" in args[0][0].host:
            type(self).begun.set()
            type(self).may_go_on.wait(60)

    def close(self):
        type(self).may_close.wait(60)
        super().close()


@pytest.fixture
def standing(es_project, node):
    """Tenants whose transports are :class:`Standing`; the one of ``es.bad`` stands still while it is made."""
    for event in (Standing.begun, Standing.may_go_on, Standing.may_close):
        event.clear()
    template = {"default": {"HOSTS": [node], "OPTIONS": {"transport_class": Standing, "request_timeout": 60}}}
    es = es_project(template, hosts=[node])
    es.node, es.bad, es.good = node, es.id("bad"), es.id("good")
    es.put(es.bad, es.record("bad", es={"HOSTS": ["http://standing.localhost:1"], "OPTIONS": {"max_retries": 0}}))
    es.put(es.good)
    yield es
    Standing.may_go_on.set()
    Standing.may_close.set()


def test_while_a_client_is_made_only_its_own_tenants_wait(standing):
    es = standing
    with running(lambda: ask(es.bad)) as ended:
        assert Standing.begun.wait(60)
        for number in range(3):
            assert ask(es.good)
            es.put(es.id(f"new{number}"), es.record("new", es={"HOSTS": ["http://standing.localhost:1"]}))
            es.put(es.bad, es.record("bad", es={"INDEX_PREFIX": f"{es.bad}-{number}-"}))
        assert ask(es.bad)  # which is elsewhere now
        es.arrived(es.bad, es.delete(es.bad))
        assert repr(es.manager.pool.open())
        assert ended == []
        Standing.may_go_on.set()


def test_a_client_that_takes_its_time_to_close_keeps_nobody_waiting(standing):
    es = standing
    assert ask(es.good)
    old = shared_of(es.good)
    es.put(es.good, es.record("good", es={"OPTIONS": {"max_retries": 1}}))
    assert ask(es.good)
    eventually(lambda: not old.is_open)
    es.arrived(es.good, es.delete(es.good))
    assert not Standing.may_close.is_set()


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_node_that_accepts_and_never_answers_is_asked_for_the_others_within_bounds(es_project, silent, asynchronous):
    """The client's own first question has no limit (``sniff_on_start``)."""
    es = es_project(hosts=[silent])
    tenant_id = es.id("x")
    options = {"sniff_on_start": True, "sniff_timeout": 0.3, "request_timeout": 0.3, "max_retries": 0}
    es.put(tenant_id, es.record("x", es={"OPTIONS": options}))

    def once():
        return asyncio.run(asyncio.wait_for(ask_async(tenant_id), 30)) if asynchronous else ask(tenant_id)

    with running(once, once, once) as ended:
        pass
    assert [type(error) for error in ended] == [ConnectionTimeout] * 3
    es.arrived(tenant_id, es.delete(tenant_id))


def test_who_waits_for_a_client_that_is_being_made_waits_for_as_long_as_a_request_may(standing):
    es = standing
    config = {"HOSTS": ["http://standing.localhost:1"], "OPTIONS": {"request_timeout": 0.2}}
    es.put(es.bad, es.record("bad", es=config))
    with running(lambda: ask(es.bad)):
        assert Standing.begun.wait(60)
        with pytest.raises(ConnectionTimeout) as error:
            ask(es.bad)
        assert "was being made" in error.value.message
        Standing.may_go_on.set()


# --- a place among the open clients ---


@pytest.fixture
def crowd(es_project, node):
    """A function that makes two tenants with a client each, in a process that may have ``limit``."""

    def make(limit):
        es = es_project(hosts=[node], MAX_OPEN_CLIENTS=limit)
        es.a, es.b = es.id("a"), es.id("b")
        for number, tenant_id in enumerate((es.a, es.b)):
            es.put(tenant_id, es.record(tenant_id, es={"OPTIONS": {"max_retries": number, "request_timeout": 30}}))
        return es

    return make


@pytest.mark.parametrize("limit", [1, 0])
async def test_tasks_wait_for_a_place_as_threads_do(crowd, limit, monkeypatch):
    monkeypatch.setattr(shared_client, "WAIT_FOR_CLIENT", 30.0)
    es = crowd(limit)
    found = await asyncio.gather(*(ask_async((es.a, es.b)[number % 2]) for number in range(24)))
    assert found == [True] * 24
    assert len(es.manager.pool.open()) == 1
    with ThreadPoolExecutor(12) as threads:
        assert all(threads.map(ask, [es.a, es.b] * 12))


async def test_when_all_places_stay_in_use_a_task_is_told_so(crowd, monkeypatch):
    monkeypatch.setattr(shared_client, "WAIT_FOR_CLIENT", 0.2)
    es = crowd(1)
    async with tenant_context_bind(es.a):
        await get_async_client().get(index="books", id="1")
        with pytest.raises(TooManyConnections, match="MAX_OPEN_CLIENTS"):
            await asyncio.create_task(ask_async(es.b))
        assert es.manager.pool.waiting_count() == 0
    assert await ask_async(es.b)


def test_a_client_that_a_living_unit_of_work_uses_makes_no_room(crowd, monkeypatch):
    monkeypatch.setattr(shared_client, "WAIT_FOR_CLIENT", 0.2)
    es = crowd(1)
    with tenant_context_bind(es.a):
        assert get_client().get(index="books", id="1")["found"]
        opened = shared_of(es.a)._client
        with running(lambda: ask(es.b)) as ended:
            pass
        assert isinstance(ended[0], TooManyConnections)
        assert shared_of(es.a)._client is opened
    assert ask(es.b)
    assert not shared_of(es.a).is_open


def test_in_a_loop_over_tenants_those_that_are_done_make_room(crowd, monkeypatch):
    monkeypatch.setattr(shared_client, "WAIT_FOR_CLIENT", 0.2)
    es = crowd(1)
    with tenant_context_bind(es.a):
        for tenant_id in (es.b, es.b):
            assert ask(tenant_id)
        assert get_client().get(index="books", id="1")["found"]


def test_a_task_that_is_cancelled_while_it_waits_leaves_the_queue(crowd, monkeypatch):
    monkeypatch.setattr(shared_client, "WAIT_FOR_CLIENT", 30.0)
    es = crowd(1)
    pool = es.manager.pool

    async def cancelled():
        waiting = asyncio.create_task(ask_async(es.b))
        while not pool.waiting_count():
            await asyncio.sleep(0.01)
        waiting.cancel()
        with suppress(asyncio.CancelledError):
            await waiting

    with shared_of(es.a).sync():
        asyncio.run(cancelled())
        assert pool.waiting_count() == 0
    assert ask(es.b)


class Asked:
    """One who waits in a queue, and does nothing else."""

    def __init__(self):
        self.granted = False

    def grant(self):
        self.granted = True
        return True


STEPS = st.lists(
    st.tuples(st.sampled_from(["enter", "leave", "unit", "over", "give up", "release"]), st.integers(0, 4)), max_size=60
)


@settings(max_examples=150, deadline=None)
@given(STEPS, st.integers(0, 3))
def test_whatever_happens_in_which_order_places_are_given_by_the_rules(steps, limit):
    pool = ClientPool(limit)
    shared = [pool.get(Cluster((f"http://c{number}.test:9200",), {})) for number in range(5)]
    closed, inside, queue = [], {each: [] for each in shared}, []
    pool._to_close = _Told(closed)
    units = {each: [] for each in shared}
    for each in shared:
        pool.acquire(each)
    for step, number in steps:
        client = shared[number]
        entered = [each for each in inside[client] if each.granted]
        if step == "enter":
            turn = Asked()
            inside[client].append(turn)
            if not pool._enter(client, turn):
                queue.append((client, turn))
        elif step == "leave" and entered:
            inside[client].remove(entered[0])
            pool.leave(client)
        elif step == "unit" and pool.is_open(client):
            units[client].append(_Use())
            pool.count(client, units[client][-1], True)
        elif step == "over" and units[client]:
            pool.count(client, units[client].pop(), False)
        elif step == "give up" and (waiting := [each for each in inside[client] if not each.granted]):
            assert not pool._give_up(client, waiting[0])
            inside[client].remove(waiting[0])
            queue.remove((client, waiting[0]))
        elif step == "release" and client.users:
            pool.release(client)
        queue = [each for each in queue if not each[1].granted]
        _check(pool, shared, inside, units, queue)


class _Told:
    """In the place of what is to be closed: nothing is open here."""

    def __init__(self, closed):
        self._closed = closed

    def append(self, job):
        self._closed.append(job)

    def __bool__(self):
        return False


class _Use:
    counted = False


def _check(pool, shared, inside, units, queue):
    used = [each for each in shared if units[each] or any(turn.granted for turn in inside[each])]
    assert all(pool.is_open(each) for each in used), "one that is in use was closed"
    assert len(pool.open()) <= pool.limit
    assert pool.waiting_count() == len(queue)
    if queue:
        assert len(used) >= pool.limit, "somebody waits although there is room"
        assert not any(pool.is_open(client) for client, _ in queue)
        assert [*pool._queue] == [turn for _, turn in queue], "they are not served in the order of their coming"
    assert not any(pool.is_open(each) for each in shared if not each.users and each not in used)


def test_what_the_garbage_collector_releases_within_the_pool_is_closed_after_it():
    pool = ClientPool(1)
    client = pool.get(Cluster(("http://c.test:9200",), {}))
    pool.acquire(client)
    with client.sync():
        pass
    assert client.is_open
    with pool._changing():
        pool.release(client)
        assert client.users == 1
    eventually(lambda: not client.is_open)
    pool.close()


# --- a share of a client's connections ---


def test_a_slow_tenant_does_not_take_all_connections_of_the_others(es_project, node):
    es = es_project(hosts=[node])
    slow, quick = es.id("slow"), es.id("quick")
    for tenant_id in (slow, quick):
        es.put(tenant_id, es.record(tenant_id, es={"OPTIONS": {"connections_per_node": 4, "request_timeout": 60}}))
    shared = shared_of(slow)
    assert shared is shared_of(quick)
    with running(*[lambda: ask(slow)] * 12) as ended:
        eventually(lambda: shared.running == 12 and shared._connections.free == 2)
        for _ in range(20):
            assert ask(quick)
        assert ended == []
        Node.gate.set()
    assert ended == [True] * 12
    assert (shared._connections.free, shared._connections.used) == (4, {})


async def test_a_slow_tenant_does_not_take_all_connections_of_a_loop(es_project, node):
    es = es_project(hosts=[node])
    slow, quick = es.id("slow"), es.id("quick")
    for tenant_id in (slow, quick):
        es.put(tenant_id, es.record(tenant_id, es={"OPTIONS": {"connections_per_node": 4, "request_timeout": 60}}))
    many = [asyncio.create_task(ask_async(slow)) for _ in range(12)]
    while shared_of(slow).running < 12:
        await asyncio.sleep(0.01)
    for _ in range(20):
        assert await asyncio.wait_for(ask_async(quick), 30)
    assert not any(task.done() for task in many)
    Node.gate.set()
    assert await asyncio.gather(*many) == [True] * 12


def test_who_is_alone_on_a_cluster_has_all_of_its_connections(es_project, node):
    es = es_project(hosts=[node])
    slow = es.id("slow")
    es.put(slow, es.record(slow, es={"OPTIONS": {"connections_per_node": 4, "request_timeout": 60}}))
    with running(*[lambda: ask(slow)] * 4):
        eventually(lambda: shared_of(slow)._connections.free == 0)
        Node.gate.set()


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["take", "give back", "give up"]), st.sampled_from("abcd")), max_size=60),
    st.integers(1, 9),
    st.booleans(),
)
def test_whatever_happens_in_which_order_connections_are_shared(steps, total, alone):
    shares, turns = ConnectionShares(total, lambda: alone), {tenant: [] for tenant in "abcd"}
    for step, tenant in steps:
        granted = [turn for turn in turns[tenant] if turn.granted]
        waiting = [turn for turn in turns[tenant] if not turn.granted]
        if step == "take":
            turns[tenant].append(Asked())
            before = shares.free
            if shares._enter(tenant, turns[tenant][-1]):
                assert before > (0 if alone else len(granted))
        elif step == "give back" and granted:
            turns[tenant].remove(granted[0])
            shares.give_back(tenant)
        elif step == "give up" and waiting:
            assert not shares._give_up(tenant, waiting[0])
            turns[tenant].remove(waiting[0])
        used = {each: sum(turn.granted for turn in own) for each, own in turns.items()}
        assert shares.free == total - sum(used.values()) >= 0
        assert shares.used == {each: number for each, number in used.items() if number}
        for each, own in turns.items():
            if len(own) > used[each]:  # it waits
                assert shares.free <= (0 if alone else used[each]), "it could have one"
                assert [turn.granted for turn in own] == sorted((turn.granted for turn in own), reverse=True)


def test_a_request_that_fails_gives_everything_back(es_project, silent):
    es = es_project(hosts=[silent])
    tenant_id = es.id("x")
    es.put(tenant_id, es.record("x", es={"OPTIONS": {"request_timeout": 0.1, "max_retries": 0}}))
    for _ in range(12):
        with pytest.raises(ConnectionTimeout):
            ask(tenant_id)
    shared = shared_of(tenant_id)
    assert (shared.running, shared.units, shared._connections.free) == (0, 0, 10)


def test_waiting_for_a_connection_ends(es_project, node):
    es = es_project(hosts=[node])
    slow = es.id("slow")
    es.put(slow, es.record(slow, es={"OPTIONS": {"connections_per_node": 1, "request_timeout": 0.5, "max_retries": 0}}))
    started = time.monotonic()
    with running(*[lambda: ask(slow)] * 6) as ended:
        pass
    assert [type(error) for error in ended] == [ConnectionTimeout] * 6
    assert time.monotonic() - started < 30
