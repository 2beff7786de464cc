"""How many clients there are, and when they are closed."""

import gc
import threading
from types import SimpleNamespace
from urllib.parse import urlsplit

import psutil
import pytest

pytest.importorskip("pymongo")

from tenant_router.context_decorators import tenant_context_bind
from tenant_router.orm_backends.mongo.manager import MongoManager
from tests.fixtures_mongo import QUIET
from tests.integration.test_fork import in_fork
from tests.tenants import collect_garbage, eventually

pytestmark = [
    *(pytest.mark.filterwarnings(rule) for rule in QUIET),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]


class Manager(MongoManager):
    """A manager of no library in particular."""


@pytest.fixture
def manager(mongo_url):
    """A function that makes a manager whose template is on the shared server."""
    made = []

    def make(**options):
        manager = Manager("x_orm", {"default": {"CONN_URL": f"{mongo_url}/unused"}}, options)
        made.append(manager)
        return manager

    yield make
    for manager in made:
        manager.uninstall()


def part(manager, name="its", **config):
    return manager.prepare("a.test", {"default": {"NAME": name, **config}}, None)["default"]


def ping(database):
    assert database.command("ping")["ok"] == 1


def closers():
    return [thread for thread in threading.enumerate() if thread.name == "tenant_router-mongo-closer"]


def monitors():
    return [thread for thread in threading.enumerate() if thread.name.startswith("pymongo")]


@pytest.fixture
def without_gc():
    """Only reference counts free anything, as between two collections."""
    collect_garbage()
    gc.disable()
    yield
    gc.enable()


def test_ten_thousand_tenants_on_one_cluster_open_one_client(manager):
    manager = manager()
    parts = [part(manager, f"d{number}") for number in range(10_000)]
    assert manager.clients.open_count() == 0
    clients = {id(each.database.client) for each in parts}
    assert (len(clients), manager.clients.open_count()) == (1, 1)
    ping(parts[-1].database)


def test_nothing_connects_before_the_first_use(manager):
    database = part(manager()).database
    assert not database.client._topology._opened
    ping(database)
    assert database.client._topology._opened


def test_a_client_is_closed_when_its_last_user_is_gone(manager, without_gc):
    manager = manager()
    used = part(manager)
    cursor = used.database["things"].find()
    list(cursor)
    ping(used.database)
    topology = used.database.client._topology
    del used
    assert topology._opened  # the cursor may be read again
    assert manager.clients.open_count() == 1
    del cursor
    eventually(lambda: not topology._opened)
    eventually(lambda: manager.clients.open_count() == 0)


def test_a_client_that_is_only_unused_is_kept(manager, without_gc):
    manager = manager()
    one, two = part(manager, "one"), part(manager, "two")
    ping(one.database)
    client = id(one.database.client)
    del one
    assert id(two.database.client) == client


def test_the_number_of_clients_is_bounded_and_the_least_recently_used_goes(manager, without_gc):
    manager = manager(MAX_CLIENTS=2)
    parts = [part(manager, OPTIONS={"appName": f"app{number}"}) for number in range(3)]
    first, second, third = parts
    in_use = first.database["things"]
    ping(first.database)
    ping(second.database)
    ping(first.database)
    ping(third.database)  # there is no room for second any more
    assert second.cluster.client is None
    eventually(lambda: manager.clients.open_count() == 2)
    ping(second.database)  # and now none for first, which is at work
    assert first.cluster.client is None
    assert manager.clients.open_count() == 3
    in_use.find_one()
    del in_use
    eventually(lambda: manager.clients.open_count() == 2)


def test_threads_that_open_at_once_share_one_client(manager):
    manager = manager()
    parts = [part(manager, f"d{number}") for number in range(8)]
    barrier, seen = threading.Barrier(8), []

    def use(each):
        barrier.wait()
        seen.append(each.database.client)

    threads = [threading.Thread(target=use, args=(each,)) for each in parts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(client) for client in seen}) == 1


def test_a_server_that_is_gone_does_not_keep_others_from_being_closed(manager, without_gc, frail_mongo):
    manager = manager()
    gone = part(manager, HOST="127.0.0.1", PORT=frail_mongo.port, OPTIONS={"serverSelectionTimeoutMS": 10_000})
    ping(gone.database)
    frail_mongo.stop()
    here = part(manager)
    ping(here.database)
    del gone, here
    eventually(lambda: manager.clients.open_count() == 0)


def test_uninstalling_closes_all_and_ends_the_thread(manager):
    before = set(closers())
    made = manager()
    used = part(made)
    ping(used.database)
    assert len(set(closers()) - before) == 1
    topology = used.database.client._topology
    made.uninstall()
    eventually(lambda: not topology._opened)
    eventually(lambda: not set(closers()) - before)


def sockets(url):
    """The connections to the server that this process holds, by their own addresses."""
    port, connections = urlsplit(url).port, psutil.Process().net_connections("tcp")
    return {found.laddr for found in connections if found.raddr and found.raddr.port == port}


def test_a_forked_child_drops_the_parents_sockets_at_once(manager, mongo_url, without_gc):
    others = sockets(mongo_url)  # of earlier tests' clients, which are being closed
    manager = manager()
    used = part(manager)
    ping(used.database)

    def child():
        before = sockets(mongo_url) - others
        manager.reset_after_fork()
        return len(before) > 0, len(sockets(mongo_url) - others)

    assert in_fork(child) == "(True, 0)"
    ping(used.database)


def test_a_forked_child_has_clients_of_its_own_and_leaves_the_parents_alone(manager):
    manager = manager()
    used = part(manager)
    ping(used.database)
    before = id(used.database.client)

    def child():
        manager.reset_after_fork()
        gc.collect()
        assert manager.clients.open_count() == 0
        ping(used.database)
        return manager.clients.open_count()

    assert in_fork(child) == "1"
    sessions = monitors()
    ping(used.database)
    assert id(used.database.client) == before
    assert set(monitors()) <= set(sessions)  # of earlier tests' clients, some may end just now


def closed_so_far(clients):
    """Wait until all clients are closed that nobody used until now."""
    done = threading.Event()
    clients._closer.start()(SimpleNamespace(close=done.set))
    assert done.wait(60)


def test_a_unit_of_work_keeps_its_client_over_a_change(documents, without_gc):
    documents.tenants.put("a.test", documents.record("a", OPTIONS={"appName": "first"}))
    documents.tenants.arrived("a.test", 4)
    with tenant_context_bind("a.test"):
        documents.models.add("one")
        topology = documents.manager.database_of("default").database.client._topology
        documents.put("a.test", "elsewhere", OPTIONS={"appName": "second"})
        closed_so_far(documents.manager.clients)
        assert topology._opened
        assert documents.models.texts() == ["a.test", "one"]
        documents.models.add("two")
    eventually(lambda: not topology._opened)
    with tenant_context_bind("a.test"):
        assert documents.models.texts() == []


def test_a_deleted_tenants_client_is_closed_after_its_last_unit_of_work(documents, without_gc):
    documents.tenants.put("a.test", documents.record("a", OPTIONS={"appName": "own"}))
    documents.tenants.arrived("a.test", 4)
    with tenant_context_bind("a.test"):
        documents.models.texts()
        topology = documents.manager.database_of("default").database.client._topology
        documents.tenants.delete("a.test")
        eventually(lambda: documents.runtime.registry.state_of("a.test") == "X")
        assert documents.models.texts() == ["a.test"]
    eventually(lambda: not topology._opened)
