import logging
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis

from tenant_router.config_store.backends import redis_clients, redis_subscription
from tenant_router.config_store.backends.redis import RedisStore
from tenant_router.config_store.base import ACTIVE, DELETED, MAX_OPS, UNREADABLE, Head, Op
from tenant_router.exceptions import Compacted, Denied, StoreUnavailable
from tenant_router.testing.store_contract.tools import commit, in_child, index_of, put, verbs
from tests.proxy import Proxy
from tests.servers import RedisServer, short_directory
from tests.tenants import eventually

PREFIX = "{tr:shop}"
SECRET = "canary-password"
NOBODYS_PORT = 1  # which nobody listens on
# seconds for what is done at once on a machine that may stand still meanwhile; what is not done at once takes LONG
SOON, LONG = 15.0, 30.0


@pytest.fixture
def make_server() -> Iterator[Callable[..., RedisServer]]:
    """Servers that a test may configure, break and kill."""
    with short_directory() as directory:
        servers: list[RedisServer] = []

        def make(*args: str) -> RedisServer:
            home = directory / str(len(servers))
            home.mkdir()
            servers.append(RedisServer(home, *args))
            servers[-1].start()
            return servers[-1]

        yield make
        for server in servers:
            server.stop()


@pytest.fixture
def server(make_server: Callable[..., RedisServer]) -> RedisServer:
    return make_server()


@pytest.fixture
def store(server: RedisServer) -> Iterator[RedisStore]:
    with closing(RedisStore("shop", {"URL": server.url}, {"socket_timeout": LONG})) as store:
        yield store


def contents(server: RedisServer) -> dict[bytes, bytes]:
    """All keys of the server, and what they hold as opaque bytes."""
    client = server.client()
    return {key: client.dump(key) for key in client.keys("*")}


def commands(server: RedisServer) -> Counter[str]:
    """How often each command that reads was called so far."""
    found = server.client().info("commandstats")
    return Counter({name: found.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("xrange", "hget", "hmget")})


def refused(action: Callable[[], object]) -> StoreUnavailable:
    """The error of something that is refused soon."""
    began = time.monotonic()
    with pytest.raises(StoreUnavailable) as caught:
        action()
    assert time.monotonic() - began < SOON
    return caught.value


@contextmanager
def server_of(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """The port of a server that hands each of its connections to ``serve``, in a thread."""
    listener = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


@pytest.fixture
def proxy(server: RedisServer) -> Iterator[Proxy]:
    with closing(Proxy(server.port)) as proxy:
        yield proxy


class TestLocation:
    def test_each_way_to_name_a_server_leads_there(self, server: RedisServer) -> None:
        locations: list[dict[str, Any]] = [
            {"HOST": "127.0.0.1", "PORT": server.port},
            {"HOST": "127.0.0.1", "PORT": str(server.port), "DB": "0", "USERNAME": None, "PASSWORD": None},
            {"URL": server.url},
            {"URL": f"unix://{server.socket}"},
            {"URL": f"unix://{server.socket}?db=0", "DB": 0},
        ]
        for rev, location in enumerate(locations, 1):
            with closing(RedisStore("shop", location)) as store:
                assert put(store, "a") == rev

    def test_services_and_databases_are_apart(self, server: RedisServer) -> None:
        for service, database in (("shop", 0), ("crm", 0), ("shop", 1)):
            with closing(RedisStore(service, {"URL": server.url, "DB": database})) as store:
                assert put(store, "a", expect=0) == 1

    def test_client_arguments_win(self, server: RedisServer) -> None:
        with closing(RedisStore("shop", {"PORT": 1, "DB": 3}, {"port": server.port, "client_name": "us"})) as store:
            put(store, "a")
            found = server.client().client_list(_type="normal")
            assert [entry["db"] for entry in found if entry["name"] == "us"] == ["3"]

    @pytest.mark.parametrize(
        ("location", "message"),
        [
            ({"HOTS": "x"}, "HOTS"),
            ({"PORT": "x"}, "PORT"),
            ({"DB": []}, "DB"),
            ({"URL": "redis://x", "HOST": "y"}, "HOST"),
            ({"URL": f"http://:{SECRET}@x"}, "URL"),
            ({"URL": f"redis://x:{SECRET}"}, "URL"),
            ({"URL": f"unix://:{SECRET}@"}, "URL"),
            ({"URL": 7}, "URL"),
            ({"URL": "redis://x?colour=red"}, "colour"),
            ({"URL": "redis://x?protocol=3"}, "protocol"),
        ],
    )
    def test_a_wrong_location_is_named(self, location: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message) as caught:
            RedisStore("shop", location)
        assert SECRET not in str(caught.value)
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__ or caught.value.__context__ is None

    @pytest.mark.parametrize("name", ["decode_responses", "single_connection_client", "colour"])
    def test_a_wrong_client_argument_is_named(self, name: str) -> None:
        with pytest.raises(ValueError, match=name):
            RedisStore("shop", None, {name: True})

    def test_a_server_that_is_not_there_is_unavailable(self, tmp_path: Path) -> None:
        for url in (f"redis://:{SECRET}@127.0.0.1:{NOBODYS_PORT}", f"unix://:{SECRET}@{tmp_path}/no.sock"):
            with closing(RedisStore("shop", {"URL": url})) as store:
                for verb in verbs(store, Head("e", 1, "c")):
                    assert SECRET not in str(refused(verb))

    @pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b":1\r\n", b"*0\r\n", b"$-1\r\n"])
    def test_a_peer_that_is_no_redis_is_unavailable(self, answer: bytes) -> None:
        def serve(peer: socket.socket) -> None:
            with peer, suppress(OSError):
                while request := peer.recv(65536):
                    peer.sendall(b"+PONG\r\n" if b"PING" in request else answer)

        with server_of(serve) as port, closing(RedisStore("shop", {"HOST": "127.0.0.1", "PORT": port})) as store:
            for verb in verbs(store, Head("e", 1, "c")):
                refused(verb)


class TestCredentials:
    def test_a_password_is_needed_and_never_told(self, make_server: Callable[..., RedisServer]) -> None:
        server = make_server("--requirepass", SECRET)
        for location in (
            {"URL": server.url, "PASSWORD": SECRET},
            {"URL": f"redis://:{SECRET}@127.0.0.1:{server.port}"},
        ):
            with closing(RedisStore("shop", location)) as store:
                put(store, "a")
                assert SECRET not in repr(store)
        for password in (None, "canary-guess"):
            with closing(RedisStore("shop", {"URL": server.url, "PASSWORD": password})) as store:
                for verb in verbs(store, Head("e", 1, "c")):
                    with pytest.raises(Denied) as caught:
                        verb()
                    assert "canary" not in str(caught.value)

    def test_a_server_that_repeats_the_password_does_not_give_it_away(
        self, make_server: Callable[..., RedisServer]
    ) -> None:
        server = make_server("--rename-command", "AUTH", "")
        with pytest.raises(redis.ResponseError, match=SECRET):
            server.client().execute_command("AUTH", SECRET)
        with closing(RedisStore("shop", {"URL": server.url, "PASSWORD": SECRET})) as store:
            error = refused(store.head)
            assert "unknown command" in str(error)
            assert SECRET not in str(error)
            assert error.__suppress_context__

    def test_a_reader_may_read_and_not_write(self, server: RedisServer, store: RedisStore) -> None:
        put(store, "a")
        rules = [f"~{PREFIX}:*", "resetchannels", f"&{PREFIX}:events", "+@read", "+@connection", "+subscribe"]
        reader = self._user(server, *rules, "+evalsha", "+script", "+eval", "+xinfo")
        before = contents(server)
        head = reader.head()
        assert reader.get_many(["a"]).keys() == index_of(reader).keys() == {"a"}
        assert reader.changes(head, wait=0.05) == []
        with pytest.raises(Denied):
            put(reader, "b")
        assert contents(server) == before
        reader.close()

    @pytest.mark.parametrize("missing", ["-xadd", "-publish", "resetchannels", "-evalsha", "-get"])
    def test_a_writer_without_a_right_writes_nothing(
        self, server: RedisServer, store: RedisStore, missing: str
    ) -> None:
        put(store, "a")
        before = contents(server)
        writer = self._user(server, "~*", "&*", "+@all", missing)
        with pytest.raises(Denied):
            commit(writer, Op("a", DELETED), Op("b", ACTIVE, b"x"))
        assert contents(server) == before
        writer.close()

    def test_a_reader_without_the_channel_is_denied(self, server: RedisServer, store: RedisStore) -> None:
        put(store, "a")
        reader = self._user(server, "~*", "resetchannels", "+@all")
        with pytest.raises(Denied):
            reader.changes(store.head(), wait=0.1)
        reader.close()

    def _user(self, server: RedisServer, *rules: str) -> RedisStore:
        server.client().execute_command("ACL", "SETUSER", "someone", "on", f">{SECRET}", *rules)
        return RedisStore("shop", {"URL": server.url, "USERNAME": "someone", "PASSWORD": SECRET})


class TestRefusals:
    def test_a_replica_is_read_only(self, make_server: Callable[..., RedisServer]) -> None:
        primary = make_server()
        with closing(RedisStore("shop", {"URL": primary.url})) as store:
            put(store, "a")
            head = store.head()
        replica = make_server("--replicaof", "127.0.0.1", str(primary.port))
        with closing(RedisStore("shop", {"URL": replica.url})) as store:
            eventually(lambda: replicated(replica))
            assert store.head() == head
            assert "read-only replica" in str(refused(lambda: put(store, "b")))

    def test_a_promoted_replica_goes_on(self, make_server: Callable[..., RedisServer]) -> None:
        primary = make_server()
        replica = make_server("--replicaof", "127.0.0.1", str(primary.port))
        with closing(RedisStore("shop", {"URL": primary.url})) as store:
            written = [put(store, "a") for _ in range(3)][-1]
            head = store.head()
        with closing(RedisStore("shop", {"URL": replica.url})) as store:
            eventually(lambda: replicated(replica) == b"3")
            replica.client().replicaof("NO", "ONE")
            assert put(store, "a", expect=written) == 4
            assert [event.rev for event in store.changes(head)] == [4]

    @pytest.mark.parametrize("name", ["meta", "docs", "idx", "log", "req:r1"])
    @pytest.mark.parametrize("empty", [True, False])
    def test_a_key_of_another_type_is_named(
        self, server: RedisServer, store: RedisStore, name: str, empty: bool
    ) -> None:
        if not empty:
            put(store, "a")
        server.client().delete(f"{PREFIX}:{name}")
        server.client().sadd(f"{PREFIX}:{name}", "theirs")
        before = contents(server)
        error = refused(lambda: store.commit([Op("b", ACTIVE, b"x"), Op("a", DELETED)], request_id="r1"))
        assert f"{PREFIX}:*" in str(error)
        assert "another application" in str(error)
        assert contents(server) == before

    def test_a_full_server_writes_nothing(self, server: RedisServer, store: RedisStore) -> None:
        put(store, "a")
        before, head = contents(server), store.head()
        for ops in ([Op("b", ACTIVE, b"x")], [Op("a", DELETED), Op("b", ACTIVE, b"x")], [Op("a", DELETED)]):
            server.client().config_set("maxmemory", 1)
            error = refused(partial(commit, store, *ops))
            assert "out of memory" in str(error)
            assert store.head() == head
            server.client().config_set("maxmemory", 0)
            assert contents(server) == before
        assert commit(store, Op("a", DELETED), Op("b", ACTIVE, b"x")) == 3

    def test_a_busy_server_is_unavailable(self, server: RedisServer, store: RedisStore) -> None:
        put(store, "a")
        server.client().config_set("lua-time-limit", 10)

        def loop() -> None:
            with suppress(redis.ResponseError):
                server.client().eval("while true do end", 0)

        def busy() -> bool:
            try:
                server.client().ping()
            except redis.ResponseError as error:
                return "BUSY" in str(error)
            return False

        thread = threading.Thread(target=loop)
        thread.start()
        eventually(busy)
        for verb in verbs(store, Head("e", 1, "c")):
            assert "BUSY" in str(refused(verb))
        server.client().script_kill()
        thread.join()
        assert put(store, "b") == 2

    def test_too_many_operations_are_refused_before_they_are_sent(self, store: RedisStore) -> None:
        assert commit(store, *(Op("a", ACTIVE, b"x") for _ in range(MAX_OPS))) == MAX_OPS
        with pytest.raises(ValueError, match=str(MAX_OPS)):
            commit(store, *(Op("a", ACTIVE, b"x") for _ in range(MAX_OPS + 1)))


class TestDamage:
    """What a stranger, an eviction policy or half a restore can leave behind."""

    def test_one_unreadable_record_does_not_hide_the_others(
        self, server: RedisServer, store: RedisStore, caplog: pytest.LogCaptureFixture
    ) -> None:
        commit(store, *(Op(tenant_id, ACTIVE, b"x") for tenant_id in "abc"))
        server.client().hset(f"{PREFIX}:docs", mapping={"b": "canary", "c": f"3:A:{'0' * 16}|canary"})
        server.client().hset(f"{PREFIX}:idx", mapping={"b": "canary", "d": b"\xff", b"\xff": "1:A:00"})
        with caplog.at_level(logging.WARNING):
            records = store.get_many(["a", "b", "c"])
            assert records.keys() == {"a", "c"}
            assert records["c"].body == b"canary"
            index = store.index()
        assert {t: entry for t, entry in index.items() if t not in "ac"} == {
            "b": UNREADABLE,
            "d": UNREADABLE,
            "\\xff": "1:A:00",
        }
        assert "canary" not in caplog.text
        assert put(store, "b", b"repaired", expect=0) == 4

    @pytest.mark.parametrize("entry", [{"id": "2-7", "t": "x"}, {"id": "2-0", "t": "x"}])
    def test_an_unreadable_log_entry_is_a_gap(
        self, server: RedisServer, store: RedisStore, entry: dict[str, str]
    ) -> None:
        put(store, "a")
        head = store.head()
        server.client().xadd(f"{PREFIX}:log", {"t": "x"}, id=entry["id"])
        server.client().xadd(f"{PREFIX}:log", {"t": "a", "e": "3:A:", "c": "c"}, id="3-0")
        with pytest.raises(Compacted):
            store.changes(head)

    def test_what_nobody_can_read_of_the_log_is_not_read_all_the_time(
        self, server: RedisServer, store: RedisStore
    ) -> None:
        put(store, "a")
        head = store.head()
        assert store.changes(head, wait=0.01) == []  # subscribed, and all was read
        with server.client() as client:
            for _ in range(7):
                client.xadd(f"{PREFIX}:log", {"x": "y"})
            client.publish(f"{PREFIX}:events", "9")
            assert store.changes(head, limit=5, wait=5.0) == []  # the push
            before = client.info("commandstats")["cmdstat_xrange"]["calls"]
            assert store.changes(head, limit=5, wait=0.3) == []
            assert client.info("commandstats")["cmdstat_xrange"]["calls"] == before

    @pytest.mark.parametrize(
        ("break_it", "why"),
        [
            (lambda client: client.delete(f"{PREFIX}:meta"), "records but no revision"),
            (lambda client: client.delete(f"{PREFIX}:idx"), "revision but no records"),
            (lambda client: client.hset(f"{PREFIX}:meta", "rev", "x"), "unreadable"),
            (lambda client: client.hdel(f"{PREFIX}:meta", "chain"), "unreadable"),
            (lambda client: client.hset(f"{PREFIX}:meta", "rev", "1"), "log ends at 2-0"),
            (lambda client: client.xadd(f"{PREFIX}:log", {"t": "x"}, id="9-0"), "log ends at 9-0"),
        ],
    )
    def test_a_damaged_store_takes_no_writes(
        self, server: RedisServer, store: RedisStore, break_it: Callable[[Any], object], why: str
    ) -> None:
        put(store, "a")
        put(store, "b")
        break_it(server.client())
        before = contents(server)
        error = refused(lambda: commit(store, Op("b", ACTIVE, b"x"), Op("a", DELETED)))
        assert why in str(error)
        assert f"{PREFIX}:*" in str(error)
        assert contents(server) == before

    @pytest.mark.parametrize("values", [{"rev": "x"}, {"rev": "1" * 30}, {"rev": b"\xff"}])
    def test_an_unreadable_head_is_unavailable(
        self, server: RedisServer, store: RedisStore, values: dict[str, Any]
    ) -> None:
        put(store, "a")
        server.client().hset(f"{PREFIX}:meta", mapping=values)
        assert "damaged" in str(refused(store.head))

    def test_a_log_that_was_emptied_is_written_on(self, server: RedisServer, store: RedisStore) -> None:
        put(store, "a")
        head = store.head()
        put(store, "b")
        server.client().xtrim(f"{PREFIX}:log", maxlen=0, approximate=False)
        assert put(store, "c") == 3
        with pytest.raises(Compacted):
            store.changes(head)
        server.client().delete(f"{PREFIX}:log")
        assert put(store, "d") == 4

    def test_the_script_cache_may_be_flushed(self, server: RedisServer, store: RedisStore) -> None:
        put(store, "a")
        server.client().script_flush()
        assert put(store, "a") == 2


class TestPush:
    def test_a_stale_or_foreign_push_does_not_wake(self, server: RedisServer, store: RedisStore) -> None:
        put(store, "a")
        put(store, "a")
        head = store.head()
        store.changes(head, wait=0.05)
        for message in ("1", "2", "nonsense", ""):
            server.client().publish(f"{PREFIX}:events", message)
        began = time.monotonic()
        assert store.changes(head, wait=0.4) == []
        assert time.monotonic() - began > 0.35

    def test_a_change_of_one_tenant_is_read_with_its_record(self, server: RedisServer, store: RedisStore) -> None:
        put(store, "a")
        head, asked = self.listening(store), []
        store.read_along = lambda tenant_id: asked.append(tenant_id) or True  # type: ignore[func-returns-value]
        put(store, "b", body=b"new")
        before = commands(server)
        (event,) = store.changes(head, wait=LONG)
        assert event.record is not None
        assert (event.tenant_id, event.record.rev, event.record.body) == ("b", 2, b"new")
        assert commands(server) - before == {"xrange": 1, "hget": 1}
        assert asked == ["b"]

    def test_a_record_is_not_read_for_who_does_not_want_it(self, server: RedisServer, store: RedisStore) -> None:
        put(store, "a")
        head = self.listening(store)
        put(store, "b")
        before = commands(server)
        assert [event.record for event in store.changes(head, wait=LONG)] == [None]
        assert commands(server) - before == {"xrange": 1}

    def test_a_commit_of_several_names_nobody(self, store: RedisStore) -> None:
        put(store, "a")
        head, store.read_along = self.listening(store), lambda tenant_id: True
        commit(store, Op("b", ACTIVE, b"1"), Op("c", ACTIVE, b"2"))
        assert [event.record for event in store.changes(head, wait=LONG)] == [None, None]

    def test_what_a_push_says_is_not_believed(self, server: RedisServer, store: RedisStore) -> None:
        put(store, "a")
        head, store.read_along = self.listening(store), lambda tenant_id: True
        for message in ("2 a", "2 nobody", b"2 \xff", "2 "):
            server.client().publish(f"{PREFIX}:events", message)
            assert store.changes(head, wait=LONG) == []  # as soon as it has come
        put(store, "b")
        server.client().publish(f"{PREFIX}:events", "2 a")
        assert [event.tenant_id for event in store.changes(head, wait=LONG)] == ["b"]

    def test_a_record_that_is_gone_again_is_none(self, store: RedisStore) -> None:
        put(store, "a")
        head, store.read_along = self.listening(store), lambda tenant_id: True
        put(store, "b")
        commit(store, Op("b", DELETED))
        assert [(event.state, event.record) for event in store.changes(head, wait=LONG)] == [("A", None), ("X", None)]

    @staticmethod
    def listening(store: RedisStore) -> Head:
        """The head, once the store has subscribed and read what there was before."""
        head = store.head()
        for _ in range(2):
            store.changes(head, wait=0.05)
        return head

    def test_asking_without_waiting_does_not_block(
        self, server: RedisServer, store: RedisStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(redis_subscription, "SLICE", LONG)
        put(store, "a")
        head = store.head()
        server.pause()
        assert store._announced(head.rev, 0) is True
        server.resume()
        self.listening(store)
        server.pause()
        began = time.monotonic()
        assert store._announced(head.rev, 0) is False
        assert time.monotonic() - began < SOON
        server.resume()

    def test_nothing_is_lost_with_the_subscription(self, server: RedisServer, store: RedisStore) -> None:
        put(store, "a")
        head = store.head()
        store.changes(head, wait=0.05)
        server.client().client_kill_filter(_type="pubsub")
        put(store, "b")
        refused(lambda: store.changes(head, wait=LONG))
        began = time.monotonic()
        assert [event.tenant_id for event in store.changes(head, wait=LONG)] == ["b"]
        assert time.monotonic() - began < SOON

    def test_a_push_whose_log_could_not_be_read_is_not_forgotten(self, server: RedisServer, store: RedisStore) -> None:
        put(store, "a")
        head = store.head()
        store.changes(head, wait=0.05)
        put(store, "b")
        assert store._announced(head.rev, LONG)
        began = time.monotonic()
        assert store.changes(head, wait=LONG)
        assert time.monotonic() - began < SOON

    def test_a_dead_subscription_is_noticed(
        self, proxy: Proxy, server: RedisServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(redis_subscription, "HEALTH_INTERVAL", 0.0)
        monkeypatch.setattr(redis_subscription, "TIMEOUT", LONG)
        with closing(RedisStore("shop", {"HOST": "127.0.0.1", "PORT": proxy.port})) as store:
            assert store._announced(0, 0.1)
            store._log(0, 1)
            assert not store._announced(0, 0.1)
            proxy.silence()
            monkeypatch.setattr(redis_subscription, "TIMEOUT", 0.5)
            refused(lambda: store._announced(0, 0.1))
            assert store._announced(0, 0.1)


class TestOutage:
    def test_a_restarted_server_is_found_again(self, make_server: Callable[..., RedisServer]) -> None:
        server = make_server("--appendonly", "yes")
        with closing(RedisStore("shop", {"URL": server.url})) as store:
            put(store, "a")
            head = store.head()
            store.changes(head, wait=0.05)
            server.stop()
            for verb in verbs(store, head):
                refused(verb)
            server.start()
            assert put(store, "b") == 2
            assert [event.rev for event in store.changes(head, wait=1)] == [2]

    def test_an_idle_connection_that_died_costs_no_commit(self, server: RedisServer, store: RedisStore) -> None:
        put(store, "a")
        server.client().client_kill_filter(_type="normal", skipme=True)
        assert put(store, "a") == 2

    def test_a_hanging_server_is_left_in_time(self, server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(redis_clients, "TIMEOUT", LONG)  # of those who do not say how long they wait
        with closing(RedisStore("shop", {"URL": server.url}, {"socket_timeout": 0.3})) as store:
            server.pause()
            for verb in verbs(store, Head("e", 1, "c")):
                refused(verb)
            server.resume()
            eventually(lambda: written(store))
            server.pause()
            for verb in verbs(store, Head("e", 1, "c")):
                refused(verb)
            server.resume()

    def test_a_commit_whose_answer_was_lost_has_one_effect(self, proxy: Proxy, server: RedisServer) -> None:
        with closing(RedisStore("shop", {"HOST": "127.0.0.1", "PORT": proxy.port})) as store:
            put(store, "a")
            proxy.lose_answer_to = b"EVALSHA"
            assert put(store, "b", expect=0) == 2
            assert proxy.lose_answer_to is None
            assert store.head().rev == 2

    def test_a_killed_server_keeps_what_it_acknowledged(self, make_server: Callable[..., RedisServer]) -> None:
        server = make_server("--appendonly", "yes", "--appendfsync", "always")
        ops = [*(Op(f"t{number}", ACTIVE, b"x" * 500) for number in range(20)), Op("t0", DELETED)]
        for _ in range(3):
            with closing(RedisStore("shop", {"URL": server.url})) as store:
                acknowledged = commit(store, *ops)
                killer = threading.Timer(0.2, server.kill)
                killer.start()
                with suppress(StoreUnavailable):
                    while True:
                        acknowledged = commit(store, *ops)
                killer.join()
                server.start()
                head = store.head()
                assert acknowledged <= head.rev
                self._is_consistent(store, server, head)

    def _is_consistent(self, store: RedisStore, server: RedisServer, head: Head) -> None:
        index = index_of(store)
        assert head.rev % 21 == 0
        assert max(entry[0] for entry in index.values()) == head.rev
        assert server.client().xinfo_stream(f"{PREFIX}:log")["last-generated-id"] == b"%d-0" % head.rev
        assert {key: record[:3] for key, record in store.get_many(list(index)).items()} == {
            key: entry for key, entry in index.items() if entry[1] != DELETED
        }

    def test_a_child_leaves_the_parents_connections_alone(self, server: RedisServer, store: RedisStore) -> None:
        put(store, "a")
        head = store.head()
        store.changes(head, wait=0.05)
        ids = connection_ids(server)
        assert in_child(lambda: use_in_child(store)) == 0
        assert [event.tenant_id for event in store.changes(head, wait=1)] == ["child"]
        eventually(lambda: connection_ids(server) == ids)  # the server may not have noticed yet that the child ended


def written(store: RedisStore) -> bool:
    """Whether a record could be written; a server that goes on may need longer to answer than the store waits."""
    with suppress(StoreUnavailable):
        return put(store, "a") >= 1
    return False


def use_in_child(store: RedisStore) -> None:
    store.reset_after_fork()
    put(store, "child")
    store.close()


def connection_ids(server: RedisServer) -> set[str]:
    with server.client() as client:
        own = str(client.client_id())
        return {entry["id"] for entry in client.client_list()} - {own}


def replicated(replica: RedisServer) -> bytes | None:
    """The revision that the replica has; it answers nobody while it loads what it was sent."""
    with suppress(redis.RedisError):
        return replica.client().hget(f"{PREFIX}:meta", "rev")  # type: ignore[no-any-return]
    return None
