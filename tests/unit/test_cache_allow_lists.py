"""A record is data: what it may say of a cache, and what is refused of it."""

import sys
import time

import pytest

from tenant_router.cache.allowed_options import faults, location

DJANGO = "django.core.cache.backends"
BACKENDS = {
    "redis": f"{DJANGO}.redis.RedisCache",
    "memcached": f"{DJANGO}.memcached.PyMemcacheCache",
    "pylibmc": f"{DJANGO}.memcached.PyLibMCCache",
    "file": f"{DJANGO}.filebased.FileBasedCache",
    "database": f"{DJANGO}.db.DatabaseCache",
    "locmem": f"{DJANGO}.locmem.LocMemCache",
    "dummy": f"{DJANGO}.dummy.DummyCache",
    "other": "no.such.module.Cache",
    "django-redis": "django_redis.cache.RedisCache",
}


def wrong(kind, config, template_location="place", widen=(), **template):
    template = {"BACKEND": BACKENDS[kind], "LOCATION": template_location, **template}
    return dict(faults(template, config, widen))


@pytest.mark.parametrize("kind", BACKENDS)
@pytest.mark.parametrize(
    ("config", "where"),
    [
        ({"KEY_FUNCTION": "subprocess.call"}, "KEY_FUNCTION"),
        ({"BACKEND": f"{DJANGO}.filebased.FileBasedCache"}, "BACKEND"),
        ({"VERSION": "/bin/touch"}, "VERSION"),
        ({"VERSION": True}, "VERSION"),
        ({"VERSION": -1}, "VERSION"),
        ({"KEY_PREFIX": -1}, "KEY_PREFIX"),
        ({"KEY_PREFIX": "a b"}, "KEY_PREFIX"),
        ({"KEY_PREFIX": "a\r\nflush_all"}, "KEY_PREFIX"),
        ({"KEY_PREFIX": "x" * 101}, "KEY_PREFIX"),
        ({"TIMEOUT": "5"}, "TIMEOUT"),
        ({"TIMEOUT": float("nan")}, "TIMEOUT"),
        ({"OPTIONS": "text"}, "OPTIONS"),
        ({"OPTIONS": None}, "OPTIONS"),
        ({"OPTIONS": {"MAX_ENTRIES": 0}}, "OPTIONS.MAX_ENTRIES"),
        ({"OPTIONS": {"serializer": "os.system"}}, "OPTIONS.serializer"),
        ({"OPTIONS": {"pool_class": "os.system"}}, "OPTIONS.pool_class"),
        ({"OPTIONS": {"parser_class": "os.system"}}, "OPTIONS.parser_class"),
        ({"OPTIONS": {"connection_class": "x"}}, "OPTIONS.connection_class"),
        ({"OPTIONS": {"CLIENT_CLASS": "os.system"}}, "OPTIONS.CLIENT_CLASS"),
        ({"OPTIONS": {"SERIALIZER": "os.system"}}, "OPTIONS.SERIALIZER"),
        ({"OPTIONS": {"REDIS_CLIENT_KWARGS": {}}}, "OPTIONS.REDIS_CLIENT_KWARGS"),
        ({"OPTIONS": {"ssl_keyfile": "/etc/passwd"}}, "OPTIONS.ssl_keyfile"),
        ({"OPTIONS": {"ssl_ca_certs": "/etc/passwd"}}, "OPTIONS.ssl_ca_certs"),
        ({"OPTIONS": {"host": "x"}}, "OPTIONS.host"),
        ({"OPTIONS": {"serde": "x"}}, "OPTIONS.serde"),
        ({"OPTIONS": {"key_prefix": "x"}}, "OPTIONS.key_prefix"),
        ({"OPTIONS": {"behaviors": {}}}, "OPTIONS.behaviors"),
        ({"LOCATION": 5}, "LOCATION"),
        ({"LOCATION": None}, "LOCATION"),
        ({"LOCATION": {"a": 1}}, "LOCATION"),
        ({"LOCATION": [5]}, "LOCATION"),
        ({"LOCATION": []}, "LOCATION"),
    ],
    ids=str,
)
def test_what_names_code_files_or_keys_is_refused(kind, config, where):
    before = set(sys.modules)
    assert where in wrong(kind, config)
    assert set(sys.modules) == before


def test_an_unknown_key_is_told_with_the_nearest_known_one():
    assert "did you mean 'LOCATION'" in wrong("redis", {"LOCATIN": "redis://other"})["LOCATIN"]
    assert "did you mean 'socket_timeout'" in wrong("redis", {"OPTIONS": {"socket_timout": 1}})["OPTIONS.socket_timout"]


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("redis", {"LOCATION": "rediss://u:p@cache.internal:6380/1?socket_timeout=2&ssl_check_hostname=true"}),
        ("redis", {"LOCATION": ["redis://a/1", "redis://[::1]:6379/1"], "TIMEOUT": None}),
        ("redis", {"LOCATION": "redis://a:1/0,redis://b:2/0", "OPTIONS": {"db": 3, "max_connections": 50}}),
        ("redis", {"LOCATION": "unix:///run/redis.sock?db=1"}),
        ("memcached", {"LOCATION": "cache.internal:11211"}),
        ("memcached", {"LOCATION": ["10.0.0.1:1", "[::1]:2", "unix:/run/mc.sock"], "OPTIONS": {"timeout": 0.5}}),
        ("pylibmc", {"LOCATION": "/run/mc.sock;b:1", "OPTIONS": {"binary": True, "username": "u", "password": "p"}}),
        ("database", {"LOCATION": "cache_table", "OPTIONS": {"MAX_ENTRIES": 5}}),
        ("locmem", {"LOCATION": "any name", "VERSION": 3, "KEY_PREFIX": "own"}),
        ("dummy", {}),
        ("other", {"LOCATION": "colours"}),
        ("other", {"LOCATION": ["redis://h/0"], "OPTIONS": {"CULL_FREQUENCY": 2}}),
        ("django-redis", {"LOCATION": "redis://h/0", "OPTIONS": {"SOCKET_TIMEOUT": 2}}),
    ],
)
def test_what_is_harmless_is_taken(kind, config):
    assert wrong(kind, config) == {}


@pytest.mark.parametrize(
    "query",
    ["ssl_keyfile=/etc/passwd", "ssl_ca_path=/etc", "connection_class=x", "path=/run/docker.sock", "host=other",
     "socket_timeout=x", "max_connections=100000", "ssl_password=x", "%73sl_keyfile=x", "db=0&redis_connect_func=x",
     "ssl_keyfile="],
)  # fmt: skip
def test_the_parameters_of_a_redis_url_go_through_the_same_list(query):
    for spelt in (f"redis://h/0?{query}", f"rediss://h/0?{query}", f"unix:///run/x?{query}"):
        for kind in ("redis", "django-redis", "other"):
            assert "parameter" in wrong(kind, {"LOCATION": spelt})["LOCATION"]
            assert "parameter" in wrong(kind, {"LOCATION": ["redis://h/0", spelt]})["LOCATION"]


@pytest.mark.parametrize(
    "url", ["file:///etc", "http://h", "redis://h/etc/passwd", "redis://h:x/0", "//h/0", "redis://[::1/0", "h:6379"]
)
def test_what_is_no_redis_url(url):
    assert "LOCATION" in wrong("redis", {"LOCATION": url})


@pytest.mark.parametrize("server", ["h:11211\r\nflush_all", "h:p", "http://h", "u:p@h:1", "a b", ""])
def test_what_is_no_memcached(server):
    assert "LOCATION" in wrong("memcached", {"LOCATION": server})
    assert "LOCATION" in wrong("memcached", {"LOCATION": ["h:1", server]})


@pytest.mark.parametrize("table", ["a b", 'x"; DROP TABLE y', "a.b", "1x", "", "x" * 64, ["t"], "x\0"])
def test_what_is_no_table(table):
    assert "LOCATION" in wrong("database", {"LOCATION": table})


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "cache"
    folder.mkdir()
    (tmp_path / "elsewhere").mkdir()
    (folder / "out").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "in").symlink_to(folder, target_is_directory=True)
    (tmp_path / "cache-too").mkdir()
    return folder


@pytest.mark.parametrize("kind", ["file", "other"])
@pytest.mark.parametrize(
    "given",
    ["/etc", "..", "a/../..", "{root}/..", "{root}-too", "{root}/out", "out/x", "/", "{root}/../elsewhere", "a\0b"],
)
def test_a_folder_outside_of_the_templates_is_refused(kind, given, root):
    assert "LOCATION" in wrong(kind, {"LOCATION": given.format(root=root)}, str(root))


@pytest.mark.parametrize("kind", ["file", "other"])
@pytest.mark.parametrize("given", ["a", "a/b", "{root}", "{root}/a", "{root}/a/../b", "{root}/../in/a", "."])
def test_a_folder_below_the_templates(kind, given, root):
    given = given.format(root=root)
    assert wrong(kind, {"LOCATION": given}, str(root)) == {}
    made = location({"BACKEND": BACKENDS[kind], "LOCATION": str(root)}, given)
    assert made == str(root) or made.startswith(f"{root}/")


def test_a_file_cache_whose_template_has_no_folder_takes_none(root):
    assert "LOCATION" in wrong("file", {"LOCATION": str(root)}, "")


def test_an_unknown_backend_in_no_folder_takes_no_path():
    for path in ("/etc", "a/b", "..", "a\\b"):
        assert "LOCATION" in wrong("other", {"LOCATION": path})


def test_the_settings_can_allow_more():
    config = {"OPTIONS": {"ssl_ca_certs": "/etc/ssl/ca.pem"}, "COLOUR": "red"}
    assert set(wrong("redis", config)) == {"OPTIONS.ssl_ca_certs", "COLOUR"}
    assert set(wrong("redis", config, widen={"ssl_ca_certs", "COLOUR"})) == {"COLOUR"}  # it is no key of the template
    assert wrong("redis", config, widen={"ssl_ca_certs", "COLOUR"}, COLOUR="blue") == {}
    for key in ("KEY_FUNCTION", "BACKEND"):
        assert key in wrong("redis", {key: "os.system"}, widen={key}, KEY_FUNCTION="x")


def test_no_message_shows_a_value():
    config = {
        "LOCATION": "redis://u:canary@h/0?x=canary&ssl_keyfile=canary",
        "KEY_PREFIX": "canary canary",
        "OPTIONS": {"x": "canary", "db": "canary"},
    }
    found = wrong("redis", config)

    assert "canary" not in str(found)


def test_a_large_record_is_refused_quickly():
    started = time.process_time()
    assert wrong("other", {"LOCATION": "a:" * 100_000, "KEY_PREFIX": "x" * 200_000, "OPTIONS": {"x" * 200_000: 1}})
    assert wrong("redis", {"LOCATION": "redis://h/0?" + "&a=b" * 40_000})
    assert time.process_time() - started < 3


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("redis", {"TIMEOUT": 10**400}),
        ("redis", {"OPTIONS": {"socket_timeout": 10**400}}),
        ("redis", {"LOCATION": f"redis://h/0?socket_timeout=1&max_connections={10**400}"}),
    ],
)
def test_a_number_beyond_all_others_is_refused(kind, config):
    assert len(wrong(kind, config)) == 1


def test_a_folder_that_no_system_can_name_is_refused(root):
    assert set(wrong("file", {"LOCATION": "\ud800"}, LOCATION=str(root))) == {"LOCATION"}


@pytest.mark.parametrize("kind", ["redis", "django-redis", "other"])
@pytest.mark.parametrize("url", ["redis://h/0?socket_timeout=1000000&socket_timeout=1", "redis://h/0#1"])
def test_a_redis_url_that_can_be_read_in_two_ways_is_refused(kind, url):
    """redis-py takes the first of two parameters of one name."""
    assert "is a URL that" in wrong(kind, {"LOCATION": url})["LOCATION"]


@pytest.mark.parametrize("name", ["a\ud800", "a\n", "a/b"])
def test_what_is_no_place_of_an_unknown_backend(name):
    assert "LOCATION" in wrong("other", {"LOCATION": name})
    assert "LOCATION" in wrong("other", {"LOCATION": ["x", name]})
