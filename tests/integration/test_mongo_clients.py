"""How many clients there are, who waits for one, and when they are closed."""

import asyncio
import contextvars
import gc
import importlib.util
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

pytest.importorskip("pymongo")

from pymongo.errors import ConnectionFailure

from tenant_router import context as _context
from tenant_router.context_decorators import tenant_context_bind
from tenant_router.exceptions import ConfigurationError, TenantContextMissing, TooManyConnections
from tenant_router.orm_backends import budget as budget_module
from tenant_router.orm_backends.mongo.manager import MongoManager
from tenant_router.tenant_context import TenantContext
from tests.fixtures_mongo import QUIET
from tests.integration.test_fork import in_fork
from tests.mongo_wire import WireServer
from tests.tenants import collect_garbage, eventually

pytestmark = [
    *(pytest.mark.filterwarnings(rule) for rule in QUIET),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]
ROOT = Path(__file__).parents[2]


class Manager(MongoManager):
    """A manager of no library in particular."""


@pytest.fixture
def manager(mongo_url):
    """A function that makes a manager whose template is on the shared server."""
    made = []

    def make(**options):
        manager = Manager("x_orm", {"default": {"CONN_URL": f"{mongo_url}/unused"}}, options)
        manager.install()
        made.append(manager)
        return manager

    yield make
    for manager in made:
        manager.uninstall()


class Tenant:
    """One with a database on the shared server; with an ``app`` of its own it has a client of its own."""

    def __init__(self, manager, name, app=None, **config):
        self.manager, self.name = manager, name
        if app is not None:
            config["OPTIONS"] = {"appName": app, **config.get("OPTIONS", {})}
        self.parts = manager.prepare(name, {"default": {"NAME": name, **config}}, None)
        self.context = TenantContext(name, 1, {"x_orm": self.parts, "django_orm": {}})
        self.home = self.parts["default"]

    @contextmanager
    def bound(self):
        before = _context.enter(self.context)
        try:
            yield self.home
        finally:
            _context.leave(before)

    def ping(self):
        with self.bound() as home:
            assert home.database.command("ping")["ok"] == 1

    def retire(self):
        self.manager.retire(self.parts, None)

    @property
    def client(self):
        """The client of its cluster, if that is open."""
        opened = self.home.cluster.opened
        return opened and opened.client


def tenants(manager, count):
    return [Tenant(manager, f"t{number}", app=f"app{number}") for number in range(count)]


@pytest.fixture
def server():
    server = WireServer()
    yield server
    server.stop()


def test_a_limit_below_one_is_an_error_of_the_settings(mongo_url):
    for limit in (0, -1, "many", None, 1.5, True):
        with pytest.raises(ConfigurationError, match="MAX_CLIENTS"):
            Manager("x_orm", {"default": {"CONN_URL": f"{mongo_url}/unused"}}, {"MAX_CLIENTS": limit})


def test_ten_thousand_tenants_on_one_cluster_open_one_client(manager):
    manager = manager()
    many = [Tenant(manager, f"d{number}") for number in range(10_000)]
    assert manager.clients.open_count() == 0
    for each in many:
        with each.bound() as home:
            assert home.database.name == each.name
    assert len({id(each.client) for each in many}) == manager.clients.open_count() == 1
    many[-1].ping()


def test_nothing_connects_before_the_first_use(manager):
    tenant = Tenant(manager(), "its")
    with tenant.bound() as home:
        assert home.database.name == "its"
    assert not tenant.client._topology._opened
    tenant.ping()
    assert tenant.client._topology._opened


def test_a_client_is_kept_while_a_tenant_needs_it_and_closed_at_once_when_none_does(manager):
    manager = manager()
    one, two = Tenant(manager, "one"), Tenant(manager, "two")
    one.ping()
    two.ping()
    client = one.client
    one.retire()
    assert two.client is client
    assert client._topology._opened
    with two.bound() as home:
        two.ping()
        two.retire()
        assert home.database.command("ping")["ok"] == 1
    assert not client._topology._opened
    assert manager.clients.open_count() == 0


def test_the_least_recently_used_client_makes_room_and_its_handles_go_on_with_another(manager):
    manager = manager(MAX_CLIENTS=2)
    first, second, third = tenants(manager, 3)
    with second.bound() as home:
        kept = home.database["things"]
    for each in (first, second, first, third):
        each.ping()
    assert [each.client is not None for each in (first, second, third)] == [True, False, True]
    with second.bound():
        assert kept.count_documents({}) == 0
        assert kept.database.client.nodes
    assert [each.client is not None for each in (first, second, third)] == [False, True, True]
    assert manager.clients.open_count() == 2


def test_what_was_kept_of_a_client_that_is_closed_can_be_ended_and_looked_at(manager, server):
    manager = manager(MAX_CLIENTS=1)
    first = Tenant(manager, "first", HOST="127.0.0.1", PORT=server.port)
    with first.bound() as home:
        handle = home.database.client
        cursor, session = home.database.x.find(), handle.start_session()
        next(cursor)
        session.start_transaction()
        home.database.x.insert_one({}, session=session)
    closed = first.client
    Tenant(manager, "second", app="x").ping()
    assert first.client is None
    cursor.close()
    session.end_session()
    assert not closed._topology._opened
    with pytest.raises(TenantContextMissing):
        assert handle.nodes
    assert handle.codec_options


def test_a_client_is_closed_without_a_word_to_its_server(manager, server):
    """Which may be gone, or slow: what it keeps for a client ends by its own time limits."""
    tenant = Tenant(manager(), "its", HOST="127.0.0.1", PORT=server.port)
    with tenant.bound() as home:
        cursor = home.database.x.find()
        next(cursor)
        home.client._close_cursor_soon(cursor.cursor_id, cursor.address)
        assert home.client._topology._session_pool is not None
        home.database.command("ping")
    before = [*server.asked]
    tenant.retire()
    eventually(lambda: not server.connections)
    assert server.asked == before


@pytest.mark.parametrize("held", ["unit", "operation"])
def test_a_client_in_use_is_never_closed_and_waiting_ends(manager, server, held, monkeypatch):
    monkeypatch.setattr(budget_module, "WAIT_FOR_CONNECTION", 0.2)
    manager = manager(MAX_CLIENTS=1)
    first = Tenant(manager, "first", HOST="127.0.0.1", PORT=server.port)
    second = Tenant(manager, "second", app="x")

    def work():
        with first.bound() as home:
            database = home.database
            if held == "unit":
                database.command("ping", comment="slow")
                return
            thread = threading.Thread(target=carried(database.command), args=["ping"])
            thread.start()
            eventually(lambda: server.busy)
        thread.join()

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(work)
        eventually(lambda: server.busy)
        if held == "operation":
            eventually(lambda: first.home.cluster.opened.users == 0)  # the unit is over, and its query goes on
        client = first.client
        with pytest.raises(TooManyConnections, match=r"all 1 MongoDB clients .* OPTIONS\['MAX_CLIENTS'\] of 'x_orm'"):
            second.ping()
        assert first.client is client
        server.go_on.set()
        running.result()
    second.ping()
    assert first.client is None


def test_a_client_that_nobody_needs_is_closed_when_its_last_operation_is_done(manager, server):
    manager = manager()
    tenant = Tenant(manager, "its", HOST="127.0.0.1", PORT=server.port)
    with tenant.bound() as home:
        thread = threading.Thread(target=carried(home.database.command), args=["ping"])
        thread.start()
        eventually(lambda: server.busy)
    tenant.retire()
    assert manager.clients.open_count() == 1
    server.go_on.set()
    thread.join()
    eventually(lambda: manager.clients.open_count() == 0)


def test_a_unit_of_work_that_became_garbage_keeps_no_client(manager):
    manager = manager()
    tenant = Tenant(manager, "its")
    copied = contextvars.copy_context()
    copied.run(_context.enter, tenant.context)
    copied.run(lambda: tenant.home.database.command("ping"))
    tenant.retire()
    assert manager.clients.open_count() == 1
    del copied
    collect_garbage()
    eventually(lambda: manager.clients.open_count() == 0)


def carried(command):
    """``command``, in a thread that has the context of this one."""
    copied = contextvars.copy_context()
    return lambda name: copied.run(lambda: command(name, comment="slow"))


def test_a_block_that_is_left_makes_room_within_its_unit_of_work(manager):
    manager = manager(MAX_CLIENTS=2)
    many = tenants(manager, 6)
    with many[0].bound():
        many[0].ping()
        for each in many[1:]:
            each.ping()
            assert manager.clients.open_count() <= 2
        assert many[0].client is not None


def test_a_transaction_keeps_its_client_until_the_unit_of_work_ends(manager, server, monkeypatch):
    monkeypatch.setattr(budget_module, "WAIT_FOR_CONNECTION", 0.2)
    manager = manager(MAX_CLIENTS=2)
    outer, other = tenants(manager, 2)
    inner = Tenant(manager, "inner", HOST="127.0.0.1", PORT=server.port)
    with outer.bound() as home:
        home.database.command("ping")
        with inner.bound() as theirs:
            session = theirs.client.start_session()
            session.start_transaction()
            theirs.database.x.insert_one({}, session=session)
        with pytest.raises(TooManyConnections):
            other.ping()
        session.end_session()
    other.ping()


def test_more_active_clusters_than_clients_are_served_in_turn(manager):
    """As many as wanted at once would have closed and opened clients for ever."""
    manager = manager(MAX_CLIENTS=4)
    many = tenants(manager, 12)
    most = []

    def work(number):
        many[number % len(many)].ping()
        most.append(manager.clients.open_count())

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(200)))
    assert max(most) <= 4
    assert len(most) == 200


def test_greenlets_at_the_limit(mongo_url):
    if importlib.util.find_spec("gevent") is None:
        pytest.skip("gevent is not installed")
    command = [sys.executable, "-W", "ignore", "-m", "tests.mongo_gevent", mongo_url]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["300", "4", "True"], done.stderr


async def test_asyncio_at_the_limit(manager, monkeypatch):
    monkeypatch.setattr(budget_module, "WAIT_FOR_CONNECTION", 60)
    manager = manager(MAX_CLIENTS=3)
    many, most = tenants(manager, 9), []

    def ask(name):
        home = _context.current().parts["x_orm"]["default"]
        assert home.database.command("ping")["ok"] == 1
        assert home.database.name == name
        most.append(manager.clients.open_count())

    async def visit(number):
        each = many[number % len(many)]
        with each.bound():
            await asyncio.to_thread(ask, each.name)
            await asyncio.sleep(0)
            await asyncio.to_thread(ask, each.name)

    # As many threads as visitors, or those who wait for a client would keep those who have one from going on.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(60))
    await asyncio.wait_for(asyncio.gather(*(visit(number) for number in range(60))), 120)
    assert len(most) == 120
    assert max(most) <= 3


def test_those_who_wait_are_served_in_the_order_of_their_coming(manager, monkeypatch):
    monkeypatch.setattr(budget_module, "WAIT_FOR_CONNECTION", 60)
    manager, served = manager(MAX_CLIENTS=1), []
    first, *others = tenants(manager, 5)

    def work(each):
        each.ping()
        served.append(each)

    with first.bound() as home:
        home.database.command("ping")
        threads = []
        for number, each in enumerate(others):
            threads.append(threading.Thread(target=work, args=[each]))
            threads[-1].start()
            eventually(lambda number=number: manager.clients.budget.waiting_count() == number + 1)
    for thread in threads:
        thread.join()
    assert served == others


def test_threads_that_open_at_once_share_one_client(manager, monkeypatch):
    manager, made = manager(), []
    many = [Tenant(manager, f"d{number}") for number in range(8)]
    barrier, original = threading.Barrier(8), manager.clients.make

    def slowly(arguments):
        made.append(original(arguments))
        time.sleep(0.2)
        return made[-1]

    monkeypatch.setattr(manager.clients, "make", slowly)

    def use(each):
        barrier.wait()
        each.ping()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(use, many))
    assert made == [many[0].client]


def test_a_client_that_takes_long_to_make_keeps_nobody_else_waiting(manager, monkeypatch):
    """As a look-up in a DNS that does not answer: neither other clusters, nor a change of records."""
    manager = manager()
    slow, other, gone = tenants(manager, 3)
    gone.ping()
    begun, go_on, original = threading.Event(), threading.Event(), manager.clients.make

    def make(arguments):
        if arguments["appname"] == "app0":
            begun.set()
            assert go_on.wait(60)
        return original(arguments)

    monkeypatch.setattr(manager.clients, "make", make)
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(slow.ping)]
        assert begun.wait(60)
        waiting.append(pool.submit(slow.ping))
        other.ping()
        gone.retire()
        assert gone.client is None
        slow.retire()
        Tenant(manager, "new", app="new").ping()
        assert not any(each.done() for each in waiting)
        go_on.set()
        for each in waiting:
            each.result()
    eventually(lambda: manager.clients.open_count() == 2)


def test_who_interrupts_the_thread_that_opens_a_client_does_not_wait_for_it(manager, monkeypatch):
    """As a signal's handler does, which the thread goes on after."""
    manager = manager()
    interrupted, handler = Tenant(manager, "interrupted"), Tenant(manager, "handler")
    original = manager.clients.make

    def make(arguments):
        monkeypatch.setattr(manager.clients, "make", original)
        handler.ping()
        return original(arguments)

    monkeypatch.setattr(manager.clients, "make", make)
    thread = threading.Thread(target=interrupted.ping, daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
    assert manager.clients.open_count() == 1
    assert interrupted.client is handler.client


def test_a_client_that_cannot_be_made_is_an_error_for_all_who_wait_and_holds_no_place(manager, monkeypatch):
    manager = manager(MAX_CLIENTS=1)
    bad, good = tenants(manager, 2)
    original = manager.clients.make

    def make(arguments):
        if arguments["appname"] == "app0":
            time.sleep(0.1)
            raise ConnectionFailure("no such name")
        return original(arguments)

    monkeypatch.setattr(manager.clients, "make", make)
    with ThreadPoolExecutor(4) as pool:
        for failed in [pool.submit(bad.ping) for _ in range(4)]:
            with pytest.raises(ConnectionFailure, match="no such name"):
                failed.result()
    assert not manager.clients.budget._attempts
    good.ping()
    assert manager.clients.open_count() == 1


def test_a_name_is_looked_up_for_a_bounded_time(manager):
    """``mongodb+srv``: by a DNS server that never answers."""
    dns = pytest.importorskip("dns.resolver", reason="dnspython is not installed")

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        resolver = dns.Resolver(configure=False)
        resolver.nameservers, resolver.port = ["127.0.0.1"], silent.getsockname()[1]
        before, dns.default_resolver = dns.default_resolver, resolver
        try:
            url = "mongodb+srv://cluster.example.test/its?connectTimeoutMS=300"
            tenant = Tenant(manager(), "its")
            tenant.parts.update(tenant.manager.prepare("its", {"default": {"CONN_URL": url}}, None))
            began = time.monotonic()
            with tenant.bound(), pytest.raises(Exception, match=r"(?i)lifetime|timed out|resolution"):
                assert tenant.parts["default"].database
            assert time.monotonic() - began < 5  # dnspython's own limit, too, would be longer
        finally:
            dns.default_resolver = before
    assert tenant.manager.clients.open_count() == 0


def test_a_server_that_is_gone_keeps_nobody_waiting_for_its_place(manager, frail_mongo):
    manager = manager(MAX_CLIENTS=1)
    options = {"serverSelectionTimeoutMS": 30_000}
    gone = Tenant(manager, "gone", HOST="127.0.0.1", PORT=frail_mongo.port, OPTIONS=options)
    gone.ping()
    frail_mongo.pause()
    here = Tenant(manager, "here")
    began = time.monotonic()
    here.ping()
    assert time.monotonic() - began < 20
    assert gone.client is None
    frail_mongo.resume()


# --- shares of a pool ---


def slow_ones(tenant, pool, count):
    def ask():
        with tenant.bound() as home:
            home.database.command("ping", comment="slow")

    return [pool.submit(ask) for _ in range(count)]


def on(manager, server, name, size, wait=10_000):
    options = {"maxPoolSize": size, "waitQueueTimeoutMS": wait}
    return Tenant(manager, name, HOST="127.0.0.1", PORT=server.port, OPTIONS=options)


def test_a_slow_tenant_does_not_take_all_connections_of_a_shared_client(manager, server):
    manager = manager()
    slow, slower, other = (on(manager, server, name, 8) for name in ("slow", "slower", "other"))
    for each in (slow, slower, other):
        each.ping()
    with ThreadPoolExecutor(40) as pool:
        waiting = slow_ones(slow, pool, 20)
        eventually(lambda: server.busy == 4)
        waiting += slow_ones(slower, pool, 20)
        eventually(lambda: server.busy == 6)
        other.ping()
        assert server.busy == 6
        server.go_on.set()
        for each in waiting:
            each.result()
    other.ping()


def test_a_tenant_that_waits_for_its_share_is_told_in_time(manager, server):
    manager = manager()
    slow, other = (on(manager, server, name, 2, wait=200) for name in ("slow", "other"))
    for each in (slow, other):
        each.ping()
    with ThreadPoolExecutor(2) as pool:
        held = slow_ones(slow, pool, 1)
        eventually(lambda: server.busy == 1)
        with pytest.raises(ConnectionFailure):
            slow.ping()
        other.ping()
        server.go_on.set()
        held[0].result()
    slow.ping()


def test_a_tenant_with_a_client_of_its_own_has_all_of_its_connections(manager, server):
    alone = on(manager(), server, "alone", 3)
    with ThreadPoolExecutor(3) as pool:
        waiting = slow_ones(alone, pool, 3)
        eventually(lambda: server.busy == 3)
        server.go_on.set()
        for each in waiting:
            each.result()


# --- processes ---


def sockets(url):
    """The connections to the server that this process holds, by their own addresses."""
    port, connections = urlsplit(url).port, psutil.Process().net_connections("tcp")
    return {found.laddr for found in connections if found.raddr and found.raddr.port == port}


@pytest.fixture
def without_gc():
    """Only reference counts free anything, as between two collections."""
    collect_garbage()
    gc.disable()
    yield
    gc.enable()


def test_a_forked_child_drops_the_parents_sockets_at_once(manager, mongo_url, without_gc):
    others = sockets(mongo_url)  # of earlier tests' clients, which are being closed
    manager = manager()
    used = Tenant(manager, "its")
    used.ping()

    def child():
        before = sockets(mongo_url) - others
        manager.reset_after_fork()
        return len(before) > 0, len(sockets(mongo_url) - others)

    assert in_fork(child) == "(True, 0)"
    used.ping()


def test_a_forked_child_has_clients_of_its_own_and_leaves_the_parents_alone(manager):
    manager = manager()
    used = Tenant(manager, "its")
    with used.bound() as home:
        kept = home.database["things"]
        kept.count_documents({})
    before = used.client

    def child():
        manager.reset_after_fork()
        assert manager.clients.open_count() == 0
        with used.bound():
            assert kept.count_documents({}) == 0
        return manager.clients.open_count()

    assert in_fork(child) == "1"
    used.ping()
    assert used.client is before


def test_uninstalling_closes_all(manager):
    made = manager()
    used = Tenant(made, "its")
    used.ping()
    client = used.client
    made.uninstall()
    assert not client._topology._opened
    assert made.clients.open_count() == 0


# --- changes ---


def test_a_unit_of_work_keeps_its_client_over_a_change(documents):
    documents.tenants.put("a.test", documents.record("a", OPTIONS={"appName": "first"}))
    documents.tenants.arrived("a.test", 4)
    with tenant_context_bind("a.test"):
        documents.models.add("one")
        topology = documents.manager.database_of("default").cluster.opened.client._topology
        documents.put("a.test", "elsewhere", OPTIONS={"appName": "second"})
        assert topology._opened
        assert documents.models.texts() == ["a.test", "one"]
        documents.models.add("two")
    assert not topology._opened
    with tenant_context_bind("a.test"):
        assert documents.models.texts() == []


def test_a_deleted_tenants_client_is_closed_after_its_last_unit_of_work(documents):
    documents.tenants.put("a.test", documents.record("a", OPTIONS={"appName": "own"}))
    documents.tenants.arrived("a.test", 4)
    with tenant_context_bind("a.test"):
        documents.models.texts()
        topology = documents.manager.database_of("default").cluster.opened.client._topology
        documents.tenants.delete("a.test")
        eventually(lambda: documents.runtime.registry.state_of("a.test") == "X")
        assert documents.models.texts() == ["a.test"]
    assert not topology._opened
