"""Redis as people run it: users with the least rights, TLS, Sentinel, Cluster, confirmed commits."""

import datetime
import ipaddress
import re
import subprocess
import threading
import time
import uuid
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
import redis
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tenant_router.config_store.backends import redis as redis_backend
from tenant_router.config_store.backends.redis import RedisStore
from tenant_router.config_store.base import Op
from tenant_router.exceptions import Denied, StoreUnavailable
from tests.processes import ROOT
from tests.servers import RedisServer, free_port, short_directory
from tests.services import require
from tests.tenants import eventually

SYSTEM_REDIS = "/usr/bin/redis-server"
WAIT = 20.0  # seconds, of a reader that is pushed nothing


@pytest.fixture
def make_server():
    with ExitStack() as stack:

        def make(*args, binary=None, port=None):
            server = RedisServer(stack.enter_context(short_directory()), *args, binary=binary)
            server.port = port or server.port
            server.start()
            stack.callback(server.stop)
            return server

        yield make


@pytest.fixture
def redis_7():
    """The path of a Redis 7 with TLS, as Linux distributions have it; the wheel's is 6.2 without."""
    found = Path(SYSTEM_REDIS).exists() and subprocess.check_output([SYSTEM_REDIS, "--version"], text=True)
    require(found and re.search(r"v=[7-9]", found), "there is no Redis 7: apt-get install redis-server")
    return SYSTEM_REDIS


def put(store, tenant_id, body=b"x"):
    return store.commit([Op(tenant_id, "A", body)], request_id=uuid.uuid4().hex)


def use_all(store):
    """Each verb of the contract once."""
    before = store.head() if put(store, "a") else None
    assert put(store, "b") == before.rev + 1
    assert [event.tenant_id for event in store.changes(before)] == ["b"]
    assert store.scan("", 10)[1].keys() == {"a", "b"}
    assert store.get_many(["a"])["a"].body == b"x"
    assert store.claim("work", "x", 60)
    assert store.claimed("work") == {"x"}
    store.release("work", "x")
    store.lease("one", "said", 60)
    assert store.leases()["one"].value == "said"
    return before


def heard(store, write):
    """The events that a waiting reader is pushed when ``write()`` happens, and the seconds it took."""
    found = []
    head = store.head()
    store.changes(head, wait=0.2)  # it subscribes
    thread = threading.Thread(target=lambda: found.extend(store.changes(head, wait=WAIT)))
    thread.start()
    time.sleep(0.2)
    started = time.monotonic()
    write()
    thread.join(2 * WAIT)
    return found, time.monotonic() - started


# --- users with the least rights ---


def documented_users():
    """The lines of docs/operations.md that make the users."""
    text = (ROOT / "docs" / "operations.md").read_text()
    lines = re.findall(r"^user (\w+) (on .*)$", text.replace("\\\n", ""), re.MULTILINE)
    return {name: rules.replace("+waitaof", "") for name, rules in lines}  # which 7.0 does not know


@pytest.fixture
def users(make_server, redis_7):
    """A server with the documented users, and a function that makes a store of one of them."""
    server = make_server(binary=redis_7)
    for name, rules in documented_users().items():
        server.client().execute_command("ACL", "SETUSER", name, *rules.replace("<service>", "shop").split())
    with ExitStack() as stack:

        def store_of(name, service="shop"):
            location = {"URL": server.url, "USERNAME": name, "PASSWORD": f"{name}-password"}
            return stack.enter_context(closing(RedisStore(service, location)))

        yield server, store_of


def test_the_documented_writer_may_do_everything(users):
    _, store_of = users
    use_all(store_of("writer"))
    found, seconds = heard(store_of("writer"), lambda: put(store_of("writer"), "c"))
    assert ([event.tenant_id for event in found], seconds < WAIT / 2) == (["c"], True)


def test_the_documented_process_reads_reports_and_writes_no_tenant(users):
    server, store_of = users
    writer, process = store_of("writer"), store_of("process")
    put(writer, "a")
    found, seconds = heard(process, lambda: put(writer, "b"))
    assert ([event.tenant_id for event in found], seconds < WAIT / 2) == (["b"], True)
    assert process.get_many(["a"])["a"].body == b"x"
    process.lease("one", "said", 60)
    assert process.claim("work", "x", 60)
    assert process.claimed("work") == {"x"}
    process.release("work", "x")
    before = server.client().hgetall("{tr:shop}:idx")
    with pytest.raises(Denied) as caught:
        put(process, "c")
    assert "password" not in str(caught.value)
    assert server.client().hgetall("{tr:shop}:idx") == before


def test_no_user_reaches_another_service(users):
    server, store_of = users
    with closing(RedisStore("bank", {"URL": server.url})) as store:
        put(store, "a")
    for name in documented_users():
        with pytest.raises(Denied):
            store_of(name, service="bank").head()


def test_a_password_that_is_changed_is_noticed_and_a_new_one_works(users):
    server, store_of = users
    store = store_of("writer")
    put(store, "a")
    server.client().execute_command("ACL", "SETUSER", "writer", "resetpass", ">other")
    server.client().execute_command("CLIENT", "KILL", "USER", "writer")
    with pytest.raises((Denied, StoreUnavailable)):
        store.head()
    with pytest.raises(Denied):
        store.head()
    server.client().execute_command("ACL", "SETUSER", "writer", ">writer-password")
    assert store.head().rev == 1


# --- TLS ---


@pytest.fixture
def certificate(tmp_path):
    """A self-signed certificate of 127.0.0.1 and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.timezone.utc)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = tmp_path / "cert.pem"
    pem.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private = tmp_path / "key.pem"
    plain = serialization.NoEncryption()
    private.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))
    return str(pem), str(private)


def test_tls(make_server, redis_7, certificate):
    pem, key = certificate
    port = free_port()
    tls = ["--tls-port", str(port), "--tls-cert-file", pem, "--tls-key-file", key, "--tls-ca-cert-file", pem]
    make_server(*tls, binary=redis_7)
    location = {"URL": f"rediss://127.0.0.1:{port}/0"}
    kwargs = {"ssl_ca_certs": pem, "ssl_certfile": pem, "ssl_keyfile": key}
    with closing(RedisStore("shop", location, kwargs)) as store:
        use_all(store)
        assert [event.tenant_id for event in heard(store, lambda: put(store, "c"))[0]] == ["c"]
    with closing(RedisStore("shop", location)) as distrustful, pytest.raises(StoreUnavailable, match="certificate"):
        distrustful.head()


# --- Sentinel ---

PATIENT = 60_000  # milliseconds: a server that stands still for a while is not down
FAILOVER = 90.0  # seconds: a sentinel that stood still for two of them does nothing for half a minute


@pytest.fixture
def sentinels(make_server, tmp_path):
    """A primary, its replica, and a sentinel that watches them."""
    primary = make_server()
    replica = make_server("--replicaof", "127.0.0.1", str(primary.port))
    port, config = free_port(), tmp_path / "sentinel.conf"
    config.write_text(
        f"port {port}\ndir {tmp_path}\nsentinel monitor shop 127.0.0.1 {primary.port} 1\n"
        f"sentinel down-after-milliseconds shop {PATIENT}\nsentinel failover-timeout shop 3000\n"
    )
    with (tmp_path / "sentinel.log").open("wb") as log:
        process = subprocess.Popen([primary._binary, str(config), "--sentinel"], stdout=log, stderr=log)
    with redis.Redis(port=port, socket_timeout=60) as sentinel:
        yield primary, replica, sentinel, {"SENTINELS": [f"127.0.0.1:{port}"], "MASTER": "shop"}
    process.kill()
    process.wait()


def test_a_failover_of_sentinel_is_followed(sentinels):
    primary, replica, sentinel, location = sentinels
    with closing(RedisStore("shop", location)) as store, closing(RedisStore("shop", location)) as reader:
        eventually(lambda: _tried(lambda: store.claim(uuid.uuid4().hex, "", 1)), FAILOVER)
        use_all(store)
        head = reader.head()
        reader.changes(head, wait=0.1)
        eventually(lambda: replica.client().hget("{tr:shop}:meta", "rev") == b"2")
        eventually(lambda: _may_follow(sentinel), FAILOVER)
        primary.kill()
        sentinel.sentinel_set("shop", "down-after-milliseconds", 500)
        after = [Op("after", "A", b"x")]
        rev = eventually(lambda: _tried(lambda: store.commit(after, request_id="after")), FAILOVER)
        sentinel.sentinel_set("shop", "down-after-milliseconds", PATIENT)
        assert rev == 3
        found = eventually(lambda: _tried(lambda: reader.changes(head, wait=0.5)), FAILOVER)
        assert [event.tenant_id for event in found] == ["after"]
        assert [event.tenant_id for event in heard(reader, lambda: put(store, "more"))[0]] == ["more"]


def _may_follow(sentinel):
    """Whether the sentinel knows a replica that is up: it looks for one every 10 seconds."""
    return any(known["flags"] == "slave" for known in sentinel.sentinel_slaves("shop"))


def _tried(function):
    try:
        return function()
    except StoreUnavailable:
        return None


def test_sentinels_that_know_no_master_are_unavailable(make_server):
    other = make_server()  # it is no sentinel
    with closing(RedisStore("shop", {"SENTINELS": [f"127.0.0.1:{other.port}"]})) as store:
        with pytest.raises(StoreUnavailable, match="master 'mymaster' of the sentinels"):
            store.head()


# --- Cluster ---


@pytest.fixture
def cluster(make_server):
    """Two nodes; the first has all slots."""
    nodes = [make_server("--cluster-enabled", "yes") for _ in range(2)]
    first, second = (node.client() for node in nodes)
    first.execute_command("CLUSTER", "ADDSLOTS", *range(16384))
    first.execute_command("CLUSTER", "MEET", "127.0.0.1", nodes[1].port)
    for client in (first, second):
        eventually(lambda client=client: "cluster_state:ok" in _said(client.execute_command("CLUSTER", "INFO")))
        eventually(lambda client=client: _said(client.execute_command("CLUSTER", "NODES")).count(" connected") == 2)
    return nodes


def _said(reply):
    return reply.decode() if isinstance(reply, bytes) else str(reply)


def test_a_cluster_by_a_node_that_has_other_slots(cluster):
    with closing(RedisStore("shop", {"CLUSTER": [f"127.0.0.1:{cluster[1].port}"]})) as store:
        use_all(store)
        found, seconds = heard(store, lambda: put(store, "c"))
        assert ([event.tenant_id for event in found], seconds < WAIT / 2) == (["c"], True)
        assert set(cluster[0].client().keys("*")) >= {b"{tr:shop}:meta", b"{tr:shop}:docs", b"{tr:shop}:log"}


def test_the_slot_moves_while_a_reader_follows(cluster):
    location = {"CLUSTER": [f"127.0.0.1:{node.port}" for node in cluster]}
    with closing(RedisStore("shop", location)) as store:
        before = use_all(store)
        _move_slot(cluster, "{tr:shop}:meta")
        assert put(store, "moved") == 3
        eventually(
            lambda: [e.tenant_id for e in _tried(lambda: store.changes(before, wait=0.5)) or ()] == ["b", "moved"]
        )
        assert [event.tenant_id for event in heard(store, lambda: put(store, "c"))[0]] == ["c"]


def _move_slot(nodes, key):
    source, target = nodes
    slot = source.client().execute_command("CLUSTER", "KEYSLOT", key)
    ids = [node.client().execute_command("CLUSTER", "MYID").decode() for node in nodes]
    target.client().execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[0])
    source.client().execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[1])
    keys = source.client().execute_command("CLUSTER", "GETKEYSINSLOT", slot, 100)
    source.client().execute_command("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
    for node in (target, source):
        node.client().execute_command("CLUSTER", "SETSLOT", slot, "NODE", ids[1])


def test_a_cluster_that_is_away_is_unavailable_and_found_again(cluster):
    with closing(RedisStore("shop", {"CLUSTER": [f"127.0.0.1:{cluster[0].port}"]})) as store:
        put(store, "a")
        with closing(RedisStore("shop", {"CLUSTER": ["127.0.0.1:1"]})) as nowhere, pytest.raises(StoreUnavailable):
            nowhere.head()
        assert store.head().rev == 1


@pytest.mark.parametrize(
    ("location", "what"),
    [
        ({"SENTINELS": "127.0.0.1:1"}, "list of 'host:port'"),
        ({"SENTINELS": ["nowhere"]}, "'nowhere'"),
        ({"CLUSTER": [7]}, "7"),
        ({"CLUSTER": ["a:1"], "SENTINELS": ["a:1"]}, "more than one"),
        ({"CLUSTER": ["a:1"], "HOST": "a"}, "more than one"),
        ({"CLUSTER": ["a:1"], "NONSENSE": 1}, "NONSENSE"),
    ],
)
def test_a_wrong_location_is_named(location, what):
    with pytest.raises(ValueError, match=re.escape(what)):
        RedisStore("shop", location)


# --- confirmed commits ---


def test_a_commit_waits_for_a_replica(make_server, caplog, monkeypatch):
    primary = make_server()
    patient = {"socket_timeout": 60}
    with closing(RedisStore("shop", {"URL": primary.url}, patient, durability="wait:1")) as store:
        assert put(store, "a") == 1
        assert "revision 1 is written, and not confirmed" in caplog.text
        replica = make_server("--replicaof", "127.0.0.1", str(primary.port))
        eventually(lambda: replica.client().hget("{tr:shop}:meta", "rev") == b"1")
        caplog.clear()
        monkeypatch.setattr(redis_backend, "_CONFIRM", 30_000)  # for a replica that stands still meanwhile
        assert put(store, "b") == 2
        assert replica.client().hget("{tr:shop}:meta", "rev") == b"2"
        assert not caplog.text


def test_a_server_that_cannot_confirm_says_so_and_keeps_the_commit(make_server, caplog):
    server = make_server()  # 6.2 has no WAITAOF
    with closing(RedisStore("shop", {"URL": server.url}, durability="waitaof")) as store:
        assert put(store, "a") == 1
    assert "cannot confirm" in caplog.text


def test_services_and_environments_share_a_server(make_server):
    server = make_server()
    services = ["shop", "shop-staging", "bank"]
    with ExitStack() as stack:
        stores = {name: stack.enter_context(closing(RedisStore(name, {"URL": server.url}))) for name in services}
        for number, name in enumerate(services, 1):
            for _ in range(number):
                put(stores[name], "a")
            stores[name].lease(name, name, 60)
        assert [stores[name].head().rev for name in services] == [1, 2, 3]
        assert [list(stores[name].leases()) for name in services] == [[name] for name in services]
