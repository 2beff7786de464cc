"""A record is data: what it may say of a database, and what is refused of it."""

import time

import pytest

from tenant_router.exceptions import RecordInvalid
from tenant_router.orm_backends.django_orm.settings import build, complete

BACKENDS = "django.db.backends"
TEMPLATES = {
    name: {"ENGINE": engine, "NAME": "template"}
    for name, engine in {
        "postgresql": f"{BACKENDS}.postgresql",
        "postgis": "django.contrib.gis.db.backends.postgis",
        "wrapped": "django_prometheus.db.backends.postgresql",
        "mysql": f"{BACKENDS}.mysql",
        "sqlite": f"{BACKENDS}.sqlite3",
        "spatialite": "django.contrib.gis.db.backends.spatialite",
        "oracle": f"{BACKENDS}.oracle",
        "unknown": "mssql",
    }.items()
}
for template in TEMPLATES.values():
    complete(template)

# Every keyword of libpq 18 (its PQconndefaults) that names a file, a service, a place, a command or a start-up option.
LIBPQ = [
    "service", "passfile", "dbname", "host", "hostaddr", "port", "user", "password", "options", "sslcert",
    "sslkey", "sslpassword", "sslcrl", "sslcrldir", "sslkeylogfile", "requirepeer", "krbsrvname", "gsslib",
    "gssdelegation", "replication", "scram_client_key", "scram_server_key", "oauth_issuer", "oauth_client_id",
    "oauth_client_secret", "oauth_scope", "client_encoding",
]  # fmt: skip
PSYCOPG = [
    "cursor_factory", "row_factory", "context", "autocommit", "conninfo",
]  # fmt: skip
MYSQLDB = [
    "init_command", "read_default_file", "read_default_group", "unix_socket", "local_infile",
    "local_infile_dir", "ssl", "auth_plugin", "server_public_key_path", "conv", "cursorclass", "client_flag",
    "multi_statements", "db", "database", "host", "port", "user", "passwd", "password", "named_pipe",
    "use_unicode", "autocommit",
]  # fmt: skip
SQLITE3 = [
    "init_command", "database", "factory", "uri", "detect_types", "isolation_level", "check_same_thread",
    "autocommit",
]  # fmt: skip
ORACLEDB = [
    "dsn", "config_dir", "wallet_location", "params", "pool_class", "connection_class", "user", "mode",
    "threaded", "appcontext",
]  # fmt: skip


def problems(engine, config):
    with pytest.raises(RecordInvalid) as caught:
        build(TEMPLATES[engine], {"NAME": "acme", **config})
    return dict(caught.value.problems)


@pytest.mark.parametrize(
    ("engine", "option"),
    [
        *(("postgresql", option) for option in (*LIBPQ, *PSYCOPG)),
        *(("postgis", option) for option in ("options", "service")),
        *(("wrapped", option) for option in ("options", "service")),
        *(("mysql", option) for option in MYSQLDB),
        *(("sqlite", option) for option in SQLITE3),
        ("spatialite", "init_command"),
        *(("oracle", option) for option in ORACLEDB),
        *(("unknown", option) for option in ("driver", "extra_params", "init_command", "options", "pool")),
    ],
)
def test_what_names_a_file_a_place_a_command_or_code_is_refused(engine, option):
    for value in ("/etc/passwd", True, 1, {}):
        assert "is not allowed" in problems(engine, {"OPTIONS": {option: value}})[f"OPTIONS.{option}"]


@pytest.mark.parametrize("option", ["options", "service", "passfile", "host", "dbname", "sslkey", "password", "x"])
@pytest.mark.parametrize("spelt", ["{}=x", "sslmode=require&{}=x", "{}=", "%{:x}"])
def test_the_parameters_of_a_url_go_through_the_same_list(option, spelt):
    spelt = spelt.replace("%{:x}", f"%{ord(option[0]):x}{option[1:]}=x").format(option)
    found = build_error({"URL": f"postgres://u:p@h/acme?{spelt}"})
    assert f"parameter {option!r}, which is not allowed" in found["URL"]


def build_error(config, engine="postgresql"):
    with pytest.raises(RecordInvalid) as caught:
        build(TEMPLATES[engine], config)
    return dict(caught.value.problems)


@pytest.mark.parametrize(
    ("engine", "options"),
    [
        ("postgresql", {"sslmode": "verify-full", "sslrootcert": "system", "application_name": "shop of acme"}),
        ("postgresql", {"connect_timeout": 3, "isolation_level": 4, "target_session_attrs": "read-write"}),
        ("postgresql", {"pool": {"min_size": 0, "max_size": 10, "timeout": 2.5}, "server_side_binding": True}),
        ("postgresql", {"pool": True, "prepare_threshold": None, "assume_role": "acme_owner"}),
        ("postgis", {"sslmode": "require"}),
        ("mysql", {"charset": "utf8mb4", "sql_mode": "STRICT_TRANS_TABLES,ANSI", "isolation_level": None}),
        ("mysql", {"ssl_mode": "REQUIRED", "read_timeout": 20, "collation": "utf8mb4_0900_ai_ci"}),
        ("sqlite", {"timeout": 60, "transaction_mode": "IMMEDIATE"}),
        ("oracle", {"use_returning_into": False, "tcp_connect_timeout": 2.0}),
        ("unknown", {"connect_timeout": 5}),
    ],
)
def test_what_is_harmless_is_taken(engine, options):
    assert build(TEMPLATES[engine], {"NAME": "acme", "OPTIONS": options})["OPTIONS"] == options


def test_the_parameters_of_a_url_have_the_types_of_the_list():
    query = "sslmode=require&connect_timeout=3&pool=true&isolation_level=4&keepalives=1&prepare_threshold=5"
    made = build(TEMPLATES["postgresql"], {"URL": f"postgres://h/acme?{query}"})
    assert made["OPTIONS"] == {
        "sslmode": "require",
        "connect_timeout": 3,
        "pool": True,
        "isolation_level": 4,
        "keepalives": 1,
        "prepare_threshold": 5,
    }


def test_options_beside_a_url_are_added_to_its_own():
    config = {"URL": "postgres://h/acme?sslmode=require&connect_timeout=3", "OPTIONS": {"connect_timeout": 4}}
    made = build(TEMPLATES["postgresql"], config)
    assert made["OPTIONS"] == {"sslmode": "require", "connect_timeout": 4}


@pytest.mark.parametrize(
    ("engine", "option", "value"),
    [
        ("postgresql", "connect_timeout", -1),
        ("postgresql", "connect_timeout", 10**9),
        ("postgresql", "connect_timeout", True),
        ("postgresql", "connect_timeout", "3 options=-c"),
        ("postgresql", "sslmode", "nope"),
        ("postgresql", "sslrootcert", "/etc/passwd"),
        ("postgresql", "application_name", "x\ny"),
        ("postgresql", "application_name", "x" * 64),
        ("postgresql", "keepalives", True),
        ("postgresql", "server_side_binding", 1),
        ("postgresql", "pool", {"max_size": 101}),
        ("postgresql", "pool", {"min_size": -1}),
        ("postgresql", "pool", {"kwargs": {"options": "-c x"}}),
        ("postgresql", "pool", {"connection_class": "x"}),
        ("postgresql", "pool", {"max_size": 2}),  # below psycopg_pool's min_size: it would fail at each connection
        ("postgresql", "pool", 1),
        ("postgresql", "require_auth", "none;x"),
        ("mysql", "charset", "utf8mb4 COLLATE x; DROP TABLE y"),
        ("mysql", "charset", "../x"),
        ("mysql", "collation", "x; DROP TABLE y"),
        ("mysql", "sql_mode", "'; DROP TABLE y; '"),
        ("mysql", "isolation_level", "serializable; x"),
        ("sqlite", "transaction_mode", "IMMEDIATE; ATTACH 'x'"),
        ("sqlite", "timeout", float("inf")),
        ("sqlite", "timeout", "5"),
    ],
)
def test_a_value_out_of_bounds_is_refused(engine, option, value):
    found = problems(engine, {"OPTIONS": {option: value}})
    assert list(found) == [f"OPTIONS.{option}"]
    assert str(value) not in found[f"OPTIONS.{option}"] or len(str(value)) < 4


@pytest.mark.parametrize(
    ("engine", "name"),
    [
        ("postgresql", "service=other"),
        ("postgresql", "dbname=x host=y"),
        ("postgresql", "postgres://other/x"),
        ("postgresql", "-f/etc/passwd"),
        ("postgresql", "x" * 64),
        ("postgresql", "ü" * 32),
        ("postgresql", "x\0y"),
        ("mysql", "--defaults-file=x"),
        ("mysql", "x" * 65),
        ("oracle", "(DESCRIPTION=(ADDRESS=(PROTOCOL=beq)(PROGRAM=/bin/sh)))"),
        ("oracle", "db/x?wallet_location=/tmp"),
        ("sqlite", "file:x.db?vfs=other"),
        ("sqlite", "file:x.db?immutable=1"),
        ("sqlite", "file:x.db?mode=other"),
        ("sqlite", "x\0y"),
    ],
)
def test_a_name_that_is_more_than_a_name_is_refused(engine, name):
    found = build_error({"NAME": name}, engine)
    assert list(found) == ["NAME"]
    assert name not in found["NAME"]


def test_a_name_in_a_url_is_looked_at_as_well():
    for path in ("a%00b", "service%3Dx", "-f", "x" * 64):
        assert "URL" in build_error({"URL": f"postgres://h/{path}"})


@pytest.mark.parametrize(
    "host", ["h", "a.b-c.d", "10.0.0.1", "::1", "[::1]", "fe80::1%eth0", "/run/pg", "a,b", "", "_x.y"]
)
def test_a_host(host):
    assert build(TEMPLATES["postgresql"], {"NAME": "acme", "HOST": host})["HOST"] == host


@pytest.mark.parametrize("host", ["-x", "h port=1", "h;x", "h:5432", "a,b c", "h'", "http://h", "h\n", "h?x"])
def test_what_is_no_host(host):
    assert "HOST" in problems("postgresql", {"HOST": host})


@pytest.mark.parametrize(
    ("engine", "user"), [("postgresql", "-x"), ("mysql", "--x"), ("oracle", "@x.sql"), ("oracle", "a/b@c")]
)
def test_a_user_that_a_program_takes_for_something_else_is_refused(engine, user):
    assert list(problems(engine, {"USER": user})) == ["USER"]


@pytest.mark.parametrize("key", ["MIRROR", "DEPENDENCIES", "USER", "PASSWORD", "DATAFILE", "CREATE_DB", "TEMPLATE"])
def test_of_test_only_what_names_nothing_else_is_taken(key):
    assert f"TEST.{key}" in problems("postgresql", {"TEST": {key: "x"}})
    assert build(TEMPLATES["postgresql"], {"NAME": "a", "TEST": {"NAME": "t", "MIGRATE": False}})["TEST"]["NAME"] == "t"


@pytest.mark.parametrize(
    ("config", "where", "meant"),
    [
        ({"PASWORD": "x"}, "PASWORD", "PASSWORD"),
        ({"password": "x"}, "password", ""),
        ({"CONN_MAXAGE": 1}, "CONN_MAXAGE", "CONN_MAX_AGE"),
        ({"OPTIONS": {"ssl_mode": "x"}}, "OPTIONS.ssl_mode", "sslmode"),
        ({"OPTIONS": {"connect_timout": 1}}, "OPTIONS.connect_timout", "connect_timeout"),
    ],
)
def test_an_unknown_key_is_told_with_the_nearest_known_one(config, where, meant):
    assert (f"did you mean {meant!r}" if meant else "is not allowed") in problems("postgresql", config)[where]


def test_the_settings_can_allow_more():
    config = {"NAME": "acme", "OPTIONS": {"options": "-c search_path=acme", "service": "x"}}
    allowed = build(TEMPLATES["postgresql"], config, (), {"options", "service"})
    assert allowed["OPTIONS"]["options"] == "-c search_path=acme"
    with pytest.raises(RecordInvalid, match=r"OPTIONS\.service"):
        build(TEMPLATES["postgresql"], config, (), {"options"})
    made = build(TEMPLATES["postgresql"], {"URL": "postgres://h/acme?options=x"}, (), {"options"})
    assert made["OPTIONS"] == {"options": "x"}
    # what is no option of a connection stays what it is
    for key, value in {"ENGINE": "os.system", "URL": "mysql://h/x", "NAME": "service=x", "USER": "-x"}.items():
        with pytest.raises(RecordInvalid):
            build(TEMPLATES["postgresql"], {"NAME": "a", key: value}, (), {key, "NAME"})


def test_a_large_record_is_refused_quickly_and_briefly():
    bad = {f"{number}{'x' * 200}": number for number in range(1_000)}
    started = time.process_time()
    with pytest.raises(RecordInvalid) as caught:
        build(TEMPLATES["postgresql"], {"NAME": "a", "OPTIONS": bad, **bad, "X" * 100_000: 1})
    assert time.process_time() - started < 2
    assert len(str(caught.value)) < 3_000
    assert "more" in str(caught.value)
    assert all(len(path) + len(what) < 300 for path, what in caught.value.problems)


@pytest.mark.parametrize(
    "url",
    [
        "postgres://u:p?canary@h/acme",
        "postgres://u:p?canary=1@h/acme",
        "postgres://u:p#canary@h/acme",
        "postgres://u:p/canary@h/acme",
        "postgres://u:canary@h:canary/acme",
        "postgres://u:canary@[h/acme",
        "canary",
        "canary:x",
        "postgres:canary",
        "postgres://h/acme?password=canary",
        "postgres://h/acme?sslmode=canary",
        "postgres://h canary/acme",
    ],
)
def test_no_message_about_a_url_shows_what_may_be_its_password(url):
    found = build_error({"URL": url})
    assert "canary" not in str(found)


@pytest.mark.parametrize(
    ("config", "where"),
    [
        ({"CONN_MAX_AGE": 10**400}, "CONN_MAX_AGE"),
        ({"OPTIONS": {"connect_timeout": -(10**400)}}, "OPTIONS.connect_timeout"),
        ({"OPTIONS": {"pool": {"max_size": 10**400}}}, "OPTIONS.pool"),
        ({"CONN_MAX_AGE": float("nan")}, "CONN_MAX_AGE"),
        ({"NAME": "\ud800"}, "NAME"),
        ({"HOST": "/\udfff"}, "HOST"),
    ],
)
def test_what_json_can_have_and_the_rest_of_the_world_cannot_is_refused(config, where):
    assert set(problems("postgresql", config)) == {where}


@pytest.mark.parametrize("name", ["file:/a%00b", "file:a%0ab", "file:\ud800"])
def test_a_path_in_a_uri_is_text(name):
    assert set(problems("sqlite", {"NAME": name})) == {"NAME"}


@pytest.mark.parametrize(
    ("spelt", "what"),
    [
        ("acme?sslmode=require&sslmode=disable", "names a parameter twice"),
        ("acme?sslmode=require&%73slmode=require", "names a parameter twice"),
        ("acme#1", "has a '#'"),
    ],
)
def test_a_url_that_can_be_read_in_two_ways_is_refused(spelt, what):
    assert what in build_error({"URL": f"postgres://u:p@h/{spelt}"})["URL"]


@pytest.mark.parametrize("zone", ["Europe/Berln", "Europe", "inf", "-x", "../UTC", 5])
def test_a_time_zone_that_nobody_knows_is_refused(zone):
    assert "time zone" in problems("postgresql", {"TIME_ZONE": zone})["TIME_ZONE"]


@pytest.mark.parametrize("zone", ["Europe/Berlin", "UTC", "Etc/GMT+3", None])
def test_a_time_zone_is_taken(zone):
    assert build(TEMPLATES["postgresql"], {"NAME": "acme", "TIME_ZONE": zone})["TIME_ZONE"] == zone


@pytest.mark.parametrize("engine", sorted(TEMPLATES.keys() - {"sqlite", "spatialite"}))
def test_a_name_of_too_many_bytes_is_a_fault_of_the_record(engine):
    assert "NAME" in problems(engine, {"NAME": "\u2603" * 1000})
