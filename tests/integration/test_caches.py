"""Two tenants on one cache never meet, whatever the backend; every backend is the real one."""

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from asgiref.sync import iscoroutinefunction
from django.core.cache import CacheHandler, cache, caches
from django.core.cache.backends.base import InvalidCacheBackendError
from django.core.management import call_command
from django.db import connections
from django.template import Context, Template
from django.test import Client, override_settings

from tenant_router.cache.patch import TenantAwareCacheHandler
from tenant_router.context_decorators import tenant_context_bind
from tenant_router.exceptions import TenantContextMissing, TenantMisconfigured
from tests.integration import cache_backends
from tests.servers import short_directory
from tests.services import require
from tests.tenants import Tenants, collect_garbage, eventually

CUSTOM = "tests.integration.cache_backends"
CENTRAL = {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "LOCATION": "central"}
ROUTERS = [f"{CUSTOM}.CentralTableRouter", "tenant_router.orm_backends.django_orm.router.DjangoOrmRouter"]
A, B = "a.test", "b.test"
PATIENT = {"timeout": 60}  # of SQLite: a thread that holds a lock may stand still
LONG = ("x" * 252 + "1", "x" * 252 + "2")

module_level = caches["default"]  # as applications do at import time


# --- the backends ---


@pytest.fixture(scope="session")
def memcached():
    binary = shutil.which("memcached") or "/usr/bin/memcached"
    require(os.access(binary, os.X_OK), "memcached is not on this machine")
    with short_directory() as directory:
        path = str(directory / "socket")  # and no port, which somebody else may take
        process = subprocess.Popen([binary, "-s", path, "-u", "root"], stderr=subprocess.DEVNULL)
        try:
            eventually(lambda: _listens(path))
            yield f"unix:{path}"
        finally:
            process.terminate()
            process.wait(60)


def _listens(path):
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(path) == 0


def _entry(kind, request, directory):
    """The ``CACHES`` entry of a backend, at a place that no other test uses."""
    unique = f"{kind}-{time.monotonic_ns()}"
    django = "django.core.cache.backends"
    if kind == "redis":
        server = request.getfixturevalue("redis_server")
        server.client().flushall()
        return {"BACKEND": f"{django}.redis.RedisCache", "LOCATION": server.url}
    if kind == "memcached":
        return {"BACKEND": f"{django}.memcached.PyMemcacheCache", "LOCATION": request.getfixturevalue("memcached")}
    return {
        "locmem": {"BACKEND": f"{django}.locmem.LocMemCache", "LOCATION": unique},
        "file": {"BACKEND": f"{django}.filebased.FileBasedCache", "LOCATION": str(directory / "cache")},
        "table": {"BACKEND": f"{django}.db.DatabaseCache", "LOCATION": "cache_table"},
        "central table": {"BACKEND": f"{django}.db.DatabaseCache", "LOCATION": "cache_table"},
        "third party": {"BACKEND": f"{CUSTOM}.ThirdParty", "LOCATION": unique},
        "own keys": {"BACKEND": f"{CUSTOM}.OwnKeys", "LOCATION": unique},
        "own keys in memory": {"BACKEND": f"{CUSTOM}.OwnKeysInMemory", "LOCATION": unique},
    }[kind]


STORING = [
    "locmem",
    "file",
    "table",
    "central table",
    "redis",
    "memcached",
    "third party",
    "own keys",
    "own keys in memory",
]


class Project:
    """A project with these ``CACHES``, and tenants of it."""

    def __init__(self, runtime, directory, kind):
        self.tenants, self.kind = Tenants(runtime, directory), kind
        self.handlers = [caches]

    def add(self, tenant_id, cache_config=None, name=None):
        extra = {"cache_config": cache_config} if cache_config else {}
        record = self.tenants.record(name or tenant_id, **extra)
        record["orm_config"]["django_orm"]["default"]["OPTIONS"] = PATIENT
        revision = self.tenants.put(tenant_id, record)
        self.tenants.arrived(tenant_id, revision)
        if self.kind == "table":
            with tenant_context_bind(tenant_id):
                call_command("createcachetable")

    def change(self, tenant_id, cache_config):
        self.add(tenant_id, cache_config)

    def remove(self, tenant_id):
        self.tenants.arrived(tenant_id, self.tenants.delete(tenant_id))


@pytest.fixture
def project(request, fresh_runtime, tmp_path):
    """A function that makes a :class:`Project` of a ``CACHES`` entry or of one of the kinds above."""
    with contextlib.ExitStack() as stack:
        yield lambda kind="locmem", **more: stack.enter_context(_project(kind, more, request, fresh_runtime, tmp_path))


@contextlib.contextmanager
def _project(kind, more, request, fresh_runtime, directory):
    entry = kind if isinstance(kind, dict) else _entry(kind, request, directory)
    settings = {"CACHES": {"default": entry, "central": CENTRAL}}
    settings["CACHES"].update({alias: {**entry, **extra} for alias, extra in more.items()})
    if kind == "central table":
        settings["DATABASE_ROUTERS"] = ROUTERS
    with override_settings(**settings), _central_database(directory / "central.db"):
        runtime = fresh_runtime()
        Tenants(runtime, directory).delete("nobody.test")
        runtime.synchronise()
        if kind == "central table":
            call_command("createcachetable", "cache_table", database="central")
        yield Project(runtime, directory, kind)
        caches.close_all()


@contextlib.contextmanager
def _central_database(path):
    """The reserved database in a file: what other threads use of a memory database is another one."""
    settings = connections.settings["central"]
    before = {name: settings[name] for name in ("NAME", "OPTIONS")}
    _reopen_central(settings, {"NAME": str(path), "OPTIONS": PATIENT})
    yield
    _reopen_central(settings, before)


def _reopen_central(settings, changed):
    connections["central"].close()
    del connections["central"]
    settings.update(changed)


@pytest.fixture(params=STORING)
def kind(request):
    return request.param


@pytest.fixture(params=["template's location", "equal locations in the records"])
def equals(request, project, kind):
    """Two tenants on one and the same place."""
    made = project(kind)
    from django.conf import settings

    location = settings.CACHES["default"]["LOCATION"]
    config = {"default": {"LOCATION": location}} if "records" in request.param else None
    made.add(A, config)
    made.add(B, config)
    yield made
    for tenant_id in (A, B):  # Memcached's content outlives the test
        with tenant_context_bind(tenant_id):
            cache.clear()


# --- isolation ---


def test_reading_operations_find_nothing_of_another_tenant(equals):
    with tenant_context_bind(A):
        cache.set_many({"number": 1, "text": "of a"})
    with tenant_context_bind(B):
        assert cache.get("text") is None
        assert cache.get("number", "absent") == "absent"
        assert cache.get_many(["number", "text"]) == {}
        assert not cache.has_key("text")
        assert "text" not in cache
        assert not cache.touch("text", 1)
        with pytest.raises(ValueError):
            cache.incr("number")
        with pytest.raises(ValueError):
            cache.incr_version("text")
    _assert_unharmed()


def _assert_unharmed():
    with tenant_context_bind(A):
        assert cache.get_many(["number", "text"]) == {"number": 1, "text": "of a"}


def test_writing_operations_change_nothing_of_another_tenant(equals):
    with tenant_context_bind(A):
        cache.set_many({"number": 1, "text": "of a"})
    with tenant_context_bind(B):
        assert cache.add("text", "of b")
        assert cache.get_or_set("number", lambda: 10) == 10
        assert cache.incr("number", 5) == 15
        assert cache.decr("number") == 14
        cache.set("text", "of b again")
        assert cache.get("text") == "of b again"
        assert cache.delete("text")
        assert not cache.delete("text")
        cache.set_many({"number": 2, "text": "b"})
        cache.delete_many(["number", "text"])
        assert cache.get("number") is None
    _assert_unharmed()


def test_versions_stay_apart(equals):
    with tenant_context_bind(A):
        cache.set("k", "one", version=1)
        cache.set("k", "two", version=2)
    with tenant_context_bind(B):
        assert cache.get("k", version=2) is None
        cache.set("k", "b two", version=2)
        assert cache.decr_version("k", version=2) == 1
        assert cache.get("k") == "b two"
    with tenant_context_bind(A):
        assert (cache.get("k"), cache.get("k", version=2)) == ("one", "two")


def test_asynchronous_operations_stay_apart(equals):
    async def of_a():
        await cache.aset("k", 1)
        await cache.aset_many({"m": 1, "n": 2})

    async def of_b():
        assert await cache.aget("k") is None
        assert not await cache.ahas_key("k")
        assert await cache.aget_many(["m", "n"]) == {}
        assert await cache.aadd("k", 5)
        assert await cache.aincr("k") == 6
        assert await cache.aget_or_set("m", 7) == 7
        assert await cache.atouch("k")
        assert await cache.adelete("k")
        await cache.adelete_many(["m", "n"])
        await cache.aclear()

    async def everything():
        async with tenant_context_bind(A):
            await of_a()
        async with tenant_context_bind(B):
            await of_b()
        async with tenant_context_bind(A):
            assert await cache.aget_many(["k", "m", "n"]) == {"k": 1, "m": 1, "n": 2}

    asyncio.run(everything())


def test_clear_reaches_the_tenants_own_entries_only(equals):
    for tenant_id in (A, B):
        with tenant_context_bind(tenant_id):
            cache.set_many({str(number): tenant_id for number in range(20)})
    with tenant_context_bind(A):
        cache.clear()
        assert cache.get_many(map(str, range(20))) == {}
        cache.set("0", "after")
        assert cache.get("0") == "after"
    with tenant_context_bind(B):
        assert len(cache.get_many(map(str, range(20)))) == 20


def test_concurrent_tenants_in_threads_read_only_what_they_wrote(equals):
    def work(number):
        tenant_id = (A, B)[number % 2]
        wrong = []
        for turn in range(15):
            with tenant_context_bind(tenant_id):
                cache.set(f"k{turn}", f"{tenant_id} {turn}")
                # a table of SQLite that is being written to drops entries silently
                if cache.get(f"k{turn}") not in (None, f"{tenant_id} {turn}"):
                    wrong.append(turn)
        caches.close_all()
        connections.close_all()
        return wrong

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, range(4))) == [[]] * 4


# --- clear() ---


def test_clear_of_a_tenant_leaves_a_tenant_whose_id_begins_like_it(project, kind):
    made = project(kind)
    for tenant_id in ("t", "t1", "t.test", "t_1"):
        made.add(tenant_id)
        with tenant_context_bind(tenant_id):
            cache.set("k", tenant_id)
    with tenant_context_bind("t"):
        cache.clear()
        assert cache.get("k") is None
    for tenant_id in ("t1", "t.test", "t_1"):
        with tenant_context_bind(tenant_id):
            assert cache.get("k") == tenant_id


def test_clear_treats_wildcards_in_an_id_as_letters(project):
    made = project("table")
    made.kind = "locmem"  # one table for both, in the database of the first
    made.add("t_1")
    with tenant_context_bind("t_1"):
        call_command("createcachetable")
    made.tenants.put("tx1", made.tenants.record("t_1"))
    made.tenants.arrived("tx1")
    with tenant_context_bind("tx1"):
        cache.set("k", 1)
    with tenant_context_bind("t_1"):
        cache.clear()
    with tenant_context_bind("tx1"):
        assert cache.get("k") == 1


def test_clear_of_one_key_prefix_means_the_whole_tenant_as_it_means_the_whole_cache_in_django(project, kind):
    made = project(kind, other={"KEY_PREFIX": "other"})
    made.add(A)
    made.add(B)
    for tenant_id in (A, B):
        with tenant_context_bind(tenant_id):
            caches["other"].set("k", tenant_id)
    with tenant_context_bind(A):
        cache.clear()
    with tenant_context_bind(A):
        assert caches["other"].get("k") is None
    with tenant_context_bind(B):
        assert caches["other"].get("k") == B


def test_clear_in_one_thread_is_seen_by_the_next_unit_of_work_in_another(equals):
    with tenant_context_bind(A):
        cache.set("k", 1)
        assert cache.get("k") == 1
    thread = threading.Thread(target=_cleared_by_another_thread)
    thread.start()
    thread.join()
    with tenant_context_bind(A):
        assert cache.get("k") is None


def _cleared_by_another_thread():
    with tenant_context_bind(A):
        cache.clear()
    caches.close_all()
    connections.close_all()


# --- keys and places ---


@pytest.mark.parametrize("length", [40, 41, 253])
def test_ids_that_differ_at_their_end_only_stay_apart(project, kind, length):
    made = project(kind)
    one, two = "x" * (length - 1) + "1", "x" * (length - 1) + "2"
    for tenant_id in (one, two):
        made.add(tenant_id, name=tenant_id[-1])
        with tenant_context_bind(tenant_id):
            cache.set("k" * 150, tenant_id)
    for tenant_id in (one, two):
        with tenant_context_bind(tenant_id):
            assert cache.get("k" * 150) == tenant_id
    with tenant_context_bind(one):
        cache.clear()
    with tenant_context_bind(two):
        assert cache.get("k" * 150) == two


def test_the_projects_prefix_version_and_key_function_are_kept(project):
    made = project(
        plain={"KEY_PREFIX": "shop", "VERSION": 7},
        shouting={"KEY_PREFIX": "shop", "KEY_FUNCTION": f"{CUSTOM}.shouting_keys"},
        callable={"KEY_FUNCTION": cache_backends.shouting_keys},
    )
    made.add(A)
    with tenant_context_bind(A):
        assert caches["default"].make_key("k") == "a.test::1:k"
        assert caches["plain"].make_key("k") == "a.test:shop:7:k"
        assert caches["plain"].make_key("k", version=9) == "a.test:shop:9:k"
        assert caches["shouting"].make_key("k") == "a.test:SHOP/1/K"
        assert caches["callable"].make_key("k") == "a.test:/1/K"
        assert (caches["plain"].key_prefix, caches["plain"].version) == ("shop", 7)


def test_key_prefixes_of_one_tenant_stay_apart(project, kind):
    if "own keys" in kind:
        pytest.skip("this backend has no key prefix")
    made = project(kind, one={"KEY_PREFIX": "one"}, two={"KEY_PREFIX": "two"})
    made.add(A)
    with tenant_context_bind(A):
        caches["one"].set("k", 1)
        assert caches["two"].get("k") is None
        assert caches["one"].get("k") == 1


def test_a_record_changes_any_key_but_the_backend(project):
    made = project(
        default_={"KEY_PREFIX": "project", "TIMEOUT": 60, "OPTIONS": {"MAX_ENTRIES": 10, "CULL_FREQUENCY": 2}}
    )
    config = {"KEY_PREFIX": "own", "VERSION": 3, "TIMEOUT": 5, "OPTIONS": {"MAX_ENTRIES": 7}}
    made.add(A, {"default_": config})
    with tenant_context_bind(A):
        own = caches["default_"]
        assert own.make_key("k") == "a.test:own:3:k"
        assert (own.default_timeout, own._max_entries, own._cull_frequency) == (5, 7, 2)


def test_each_tenant_has_the_location_of_its_record(project, redis_server):
    made = project("redis")
    place = redis_server.url.removesuffix("/0")
    made.add(A, {"default": {"LOCATION": f"{place}/1"}})
    made.add(B, {"default": {"LOCATION": f"{place}/2"}})
    for tenant_id in (A, B):
        with tenant_context_bind(tenant_id):
            cache.set("k", tenant_id)
    assert redis_server.client(db=0).keys() == []
    assert redis_server.client(db=1).keys() == [b"a.test::1:k"]
    assert redis_server.client(db=2).keys() == [b"b.test::1:k"]


def test_a_file_cache_has_a_folder_for_each_tenant(project, tmp_path):
    made = project("file")
    made.add(A)
    made.add(LONG[0], name="long")
    for tenant_id in (A, LONG[0]):
        with tenant_context_bind(tenant_id):
            cache.set("k", 1)
    folders = sorted(path.name for path in (tmp_path / "cache").iterdir())
    assert folders[0] == A
    assert folders[1].startswith("~")
    assert len(folders[1]) == 17


def test_redis_clear_unlinks_page_by_page_and_nothing_else(project, redis_server):
    made = project("redis")
    made.add(A)
    made.add(B)
    redis_server.client().set("a.test", "somebody else's")
    with tenant_context_bind(A):
        cache.set_many({str(number): number for number in range(2_500)})
    with tenant_context_bind(B):
        cache.set("k", 1)
    with tenant_context_bind(A):
        cache.clear()
    assert sorted(redis_server.client().keys()) == [b"a.test", b"b.test::1:k"]


def test_nothing_ever_stored_is_no_error(project):
    made = project({"BACKEND": "django.core.cache.backends.dummy.DummyCache"})
    made.add(A)
    with tenant_context_bind(A):
        cache.set("k", 1)
        assert cache.get("k") is None
        assert cache.get_or_set("k", 2) == 2
        assert cache.add("k", 1)
        cache.clear()
    with pytest.raises(TenantContextMissing):
        cache.get("k")


# --- sockets ---


def test_fifty_tenants_of_the_templates_redis_share_one_client(project, redis_server):
    made = project("redis")
    ids = [f"t{number}.test" for number in range(50)]
    for tenant_id in ids:
        made.add(tenant_id)
    with contextlib.closing(redis_server.client()) as looking:
        before = _connected(looking)
        for tenant_id in ids:
            with tenant_context_bind(tenant_id):
                cache.set("k", tenant_id)
        for tenant_id in ids:
            with tenant_context_bind(tenant_id):
                assert cache.get("k") == tenant_id
        assert len(_connected(looking) - before) == 1


def _connected(looking):
    """The ids of the connections by TCP, as those of caches are: what others have left may end at any time."""
    return {each["id"] for each in looking.client_list() if each["addr"].startswith("127.0.0.1:")}


def test_fifty_tenants_of_the_templates_memcached_share_one_client(project):
    made = project("memcached")
    clients = set()
    for number in range(50):
        made.add(f"t{number}.test")
        with tenant_context_bind(f"t{number}.test"):
            cache.set("k", number)
            clients.add(id(cache._cache))
    assert len(clients) == 1


def test_a_backend_with_a_memory_of_its_own_is_not_shared(project, redis_server):
    made = project({"BACKEND": f"{CUSTOM}.TwoLevels", "LOCATION": redis_server.url, "KEY_PREFIX": uuid.uuid4().hex})
    made.add(A)
    made.add(B)
    with tenant_context_bind(A):
        cache.set("k", "of a")
        assert cache.get("k") == "of a"
    with tenant_context_bind(B):
        assert cache.get("k") is None


def test_parameters_that_a_backend_takes_out_are_there_for_the_next_thread(project):
    made = project({"BACKEND": f"{CUSTOM}.ThirdParty", "LOCATION": "colours", "COLOUR": "red"})
    made.add(A)

    def colour():
        with tenant_context_bind(A):
            return cache.colour

    with ThreadPoolExecutor(1) as pool:
        assert [colour(), pool.submit(colour).result()] == ["red", "red"]


# --- live changes ---


def test_a_changed_location_is_used_by_the_next_unit_of_work(project):
    made = project("locmem")
    made.add(A)
    with tenant_context_bind(A):
        cache.set("k", "old")
        made.change(A, {"default": {"LOCATION": "another"}})
        assert cache.get("k") == "old"
    with tenant_context_bind(A):
        assert cache.get("k") is None
        cache.set("k", "new")
    made.change(A, None)
    with tenant_context_bind(A):
        assert cache.get("k") == "old"


def test_a_replaced_cache_and_its_sockets_are_dropped(project, redis_server):
    made = project("redis")
    made.add(A, {"default": {"LOCATION": redis_server.url.removesuffix("/0") + "/1"}})
    collect_garbage()  # clients of earlier tests
    with contextlib.closing(redis_server.client()) as looking:
        before = _connected(looking)
        with tenant_context_bind(A):
            cache.set("k", 1)
        (own,) = _connected(looking) - before
        made.change(A, {"default": {"LOCATION": redis_server.url.removesuffix("/0") + "/2"}})
        eventually(lambda: own not in _connected(looking))  # the server notices a little later
    assert _open_count(caches) == 0


def test_a_deleted_tenants_cache_is_dropped(project):
    made = project("locmem")
    made.add(A)
    with tenant_context_bind(A):
        cache.set("k", 1)
    assert _open_count(caches) == 1
    made.remove(A)
    assert _open_count(caches) == 0


def test_replaced_caches_do_not_pile_up_in_a_thread_that_never_closes_any(project):
    made = project("locmem")
    for number in range(5):
        made.add(A, {"default": {"LOCATION": str(number)}})
        with tenant_context_bind(A):
            cache.get("k")
    assert _open_count(caches) == 1


def _open_count(handler):
    return handler._open.with_sockets.count + handler._open.without.count


def test_an_unchanged_cache_stays_when_the_database_changes(project):
    made = project("locmem")
    made.add(A)
    with tenant_context_bind(A):
        cache.local_mark = "same object"
    made.add(A, name="moved")
    caches.close_all()
    with tenant_context_bind(A):
        assert cache.local_mark == "same object"


@pytest.mark.parametrize(
    "config",
    [
        {"KEY_FUNCTION": "no.such.function"},
        {"KEY_FUNCTION": 5},
        {"KEY_FUNCTION": ["a"]},
        {"KEY_FUNCTION": "nodots"},
        {"OPTIONS": "text"},
        {"OPTIONS": None},
        {"LOCATION": 5},
        {"LOCATION": {"a": 1}},
        {"BACKEND": "django.core.cache.backends.dummy.DummyCache"},
    ],
    ids=str,
)
def test_a_wrong_cache_record_harms_its_tenant_only(project, config):
    made = project("locmem")
    made.add(A, {"default": config})
    made.add(B)
    with tenant_context_bind(B):
        cache.set("k", 1)
        assert cache.get("k") == 1
    with pytest.raises(TenantMisconfigured, match="cache_config"):
        tenant_context_bind(A).__enter__()


def test_nothing_that_a_record_names_is_imported(project, tmp_path, monkeypatch):
    (tmp_path / "fails_at_import.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    made = project("locmem")
    made.add(A, {"default": {"KEY_FUNCTION": "fails_at_import.function"}})
    made.add(B)
    with tenant_context_bind(B):
        cache.set("k", 1)
    with pytest.raises(TenantMisconfigured, match="KEY_FUNCTION: is not allowed"):
        tenant_context_bind(A).__enter__()


# --- aliases ---


def test_a_reserved_alias_is_djangos_own_and_shared(project):
    made = project("locmem")
    made.add(A)
    caches["central"].set("k", "central")
    with tenant_context_bind(A):
        assert caches["central"].get("k") == "central"
        assert caches["central"].make_key("k") == ":1:k"
        cache.clear()
    assert type(caches["central"]).__module__ == "django.core.cache.backends.locmem"
    assert caches["central"].get("k") == "central"


def test_an_alias_that_no_one_configured_raises_djangos_error(project):
    made = project("locmem")
    made.add(A)
    with pytest.raises(InvalidCacheBackendError):
        caches["nobody"]
    with tenant_context_bind(A), pytest.raises(InvalidCacheBackendError):
        caches["nobody"]


def test_without_a_tenant_lookups_work_and_uses_raise(project):
    project("locmem")
    found = caches["default"]
    found.close()
    caches.close_all()
    assert "default" in repr(found)
    for use in (
        lambda: found.get("k"),
        lambda: found.set("k", 1),
        lambda: found.clear(),
        lambda: "k" in found,
        lambda: cache.get("k"),
        lambda: module_level.get("k"),
        lambda: found.key_prefix,
    ):
        with pytest.raises(TenantContextMissing, match="cache alias 'default'"):
            use()


def test_what_inspects_module_attributes_does_not_stumble_over_an_unbound_cache(project):
    project("locmem")
    assert not hasattr(module_level, "__wrapped__")  # inspect.unwrap, doctest
    assert not callable(module_level)


def test_a_cache_looked_up_at_import_time_is_the_bound_tenants(project):
    made = project("locmem")
    made.add(A)
    made.add(B)
    with tenant_context_bind(A):
        module_level.set("k", "of a")
        assert cache.get("k") == caches["default"].get("k") == "of a"
        with tenant_context_bind(B):
            assert module_level.get("k") is None


@pytest.mark.parametrize("kind", ["locmem", {"BACKEND": f"{CUSTOM}.ThirdParty", "LOCATION": "own"}])
def test_a_kept_method_is_the_bound_tenants_at_each_call(project, kind):
    made = project(kind)
    made.add(A)
    made.add(B)
    names = ("get", "set", "add", "incr", "clear", "make_key", "aget", "get_many")
    at_import = {name: getattr(cache, name) for name in names}
    with tenant_context_bind(A):
        at_import["set"]("k", "of a")
        kept = {name: getattr(cache, name) for name in names}
    for each in (at_import, kept):
        with tenant_context_bind(B):
            assert (each["get"]("k"), each["get_many"](["k"]), each["add"]("n", 1)) == (None, {}, True)
            assert each["make_key"]("k") == cache.make_key("k")
            assert asyncio.run(each["aget"]("n")) == 1
            with pytest.raises(ValueError, match="not found"):
                each["incr"]("k")
            each["clear"]()
            assert each["get"]("n") is None
        with tenant_context_bind(A):
            assert each["get"]("k") == "of a"
        with pytest.raises(TenantContextMissing):
            each["get"]("k")
    assert iscoroutinefunction(cache.aget)
    assert not iscoroutinefunction(cache.get)


def test_a_kept_method_of_a_projects_own_cache_class_too(project):
    made = project({"BACKEND": f"{CUSTOM}.ThirdParty", "LOCATION": "own", "COLOUR": "red"})
    made.add(A)
    made.add(B)
    with tenant_context_bind(A):
        paint = cache.paint
        with tenant_context_bind(B):
            paint("blue")
            assert cache.colour == "blue"
        assert cache.colour == "red"


def test_everything_of_a_projects_own_cache_class_is_reachable(project):
    made = project({"BACKEND": f"{CUSTOM}.ThirdParty", "LOCATION": "own", "COLOUR": "red"})
    made.add(A)
    made.add(B)
    with tenant_context_bind(A):
        assert cache.paint("blue").colour == "blue"
        assert cache.colour == "blue"
        cache.mark = "of a"  # of the object that this unit of work has
        with tenant_context_bind(B):
            assert cache.colour == "red"
            assert not hasattr(cache, "mark")
        del caches["default"].mark
        assert not hasattr(cache, "mark")


def test_a_singleton_of_the_handler_serves_the_same_entries(project):
    made = project("locmem")
    made.add(A)
    made.add(B)
    own = TenantAwareCacheHandler()
    with tenant_context_bind(A):
        own["default"].set("k", "of a")
        assert cache.get("k") == "of a"
    with tenant_context_bind(B):
        assert own["default"].get("k") is None
    own["central"].set("k", 1)
    assert caches["central"].get("k") == 1
    with pytest.raises(TenantContextMissing):
        own["default"].get("k")
    with pytest.raises(InvalidCacheBackendError):
        own["nobody"]
    own.close_all()


def test_a_singleton_of_the_handler_takes_no_socket_over_a_fork(project, redis_server):
    made = project("redis")
    made.add(A)
    own = TenantAwareCacheHandler()
    with tenant_context_bind(A):
        own["default"].set("k", 1)
    child = os.fork()
    if child == 0:
        os._exit(_open_count(own) + _open_count(caches))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert _open_count(own) == 1


def test_uninstalling_gives_djangos_handler_back(project):
    made = project("locmem")
    made.add(A)
    runtime = made.tenants.runtime
    runtime.caches.uninstall()
    try:
        assert type(caches) is CacheHandler
        cache.set("k", "plain")
        assert cache.make_key("k") == ":1:k"
        assert cache.get("k") == "plain"
    finally:
        runtime.caches.install()
    assert type(caches) is TenantAwareCacheHandler
    with tenant_context_bind(A):
        assert cache.get("k") is None
    with pytest.raises(TenantContextMissing):
        cache.get("k")


def test_installing_twice_is_installing_once(project):
    made = project("locmem")
    made.add(A)
    with tenant_context_bind(A):
        cache.mark = "kept"
        made.tenants.runtime.caches.install()
        assert cache.mark == "kept"


# --- what Django builds on caches ---


def test_the_template_tag_cache_keeps_tenants_apart(project):
    made = project("locmem")
    template = Template("{% load cache %}{% cache 60 fragment %}{{ who }}{% endcache %}")
    for tenant_id in (A, B):
        made.add(tenant_id)
        with tenant_context_bind(tenant_id):
            assert template.render(Context({"who": tenant_id})) == tenant_id
            assert template.render(Context({"who": "nobody"})) == tenant_id


def test_cache_page_keeps_tenants_apart(two):
    a, b = Client(headers={"host": A}), Client(headers={"host": B})
    a.post("/notes/", {"text": "only a"}, content_type="application/json")
    first = a.get("/notes/cached/").json()
    a.post("/notes/", {"text": "later"}, content_type="application/json")
    assert a.get("/notes/cached/").json() == first
    assert b.get("/notes/cached/").json()["notes"] == []


@pytest.mark.parametrize("engine", ["cache", "cached_db"])
def test_a_session_in_the_cache_is_worth_nothing_to_another_tenant(two, engine):
    with override_settings(SESSION_ENGINE=f"django.contrib.sessions.backends.{engine}"):
        client = Client(headers={"host": A})
        assert [client.get("/session/").json()["visits"] for _ in range(2)] == [1, 2]
        assert client.get("/session/", headers={"host": B}).json()["visits"] == 1
