"""From a template and a record to the settings of one connection."""

import pytest
from django.conf import settings

from tenant_router.exceptions import RecordInvalid
from tenant_router.orm_backends.django_orm.settings import build, complete

POSTGRES = {
    "ENGINE": "django.db.backends.postgresql",
    "NAME": "template",
    "USER": "owner",
    "PASSWORD": "template-secret",
    "HOST": "db",
    "PORT": 5432,
    "OPTIONS": {"connect_timeout": 3, "sslmode": "prefer"},
    "CONN_MAX_AGE": 60,
    "ATOMIC_REQUESTS": True,
    "TIME_ZONE": "Asia/Tokyo",
    "TEST": {"NAME": "test_template", "MIRROR": None},
}
SQLITE = {"ENGINE": "django.db.backends.sqlite3", "NAME": "db.sqlite3"}
for each in (POSTGRES, SQLITE):
    complete(each)


def problems(template, config, engines=()):
    with pytest.raises(RecordInvalid) as caught:
        build(template, config, engines)
    return dict(caught.value.problems)


def test_what_is_left_out_comes_from_the_template():
    made = build(POSTGRES, {"NAME": "acme"})
    assert {**POSTGRES, "NAME": "acme"}.items() >= {key: made[key] for key in POSTGRES if key != "TEST"}.items()
    assert made["CONN_MAX_AGE"] == 60
    assert made["ATOMIC_REQUESTS"] is True
    assert made["TIME_ZONE"] == "Asia/Tokyo"


def test_defaults_are_completed_as_django_does():
    made = build(SQLITE, {"NAME": "/a/b.db"})
    assert made["AUTOCOMMIT"] is True
    assert made["CONN_MAX_AGE"] == 0
    assert made["CONN_HEALTH_CHECKS"] is False
    assert made["OPTIONS"] == {}
    assert made["TEST"] == {"CHARSET": None, "COLLATION": None, "MIGRATE": True, "MIRROR": None, "NAME": None}


def test_the_record_wins_and_neither_input_is_changed():
    # defect (o): settings were .pop()ped, so that a second parse found nothing
    template, config = dict(POSTGRES), {"NAME": "acme", "PASS": "p", "OPTIONS": {"sslmode": "require"}}
    before = repr((template, config))
    first, second = build(template, config), build(template, config)
    assert first == second
    assert repr((template, config)) == before
    first["OPTIONS"]["sslmode"] = "disable"
    first["TEST"]["NAME"] = "x"
    assert second["OPTIONS"]["sslmode"] == "require"
    assert template["OPTIONS"]["sslmode"] == "prefer"
    assert template["TEST"]["NAME"] == "test_template"


def test_options_and_test_merge_one_level_deep():
    made = build(
        POSTGRES, {"NAME": "acme", "OPTIONS": {"sslmode": "require", "pool": {"max_size": 9}}, "TEST": {"NAME": "t"}}
    )
    assert made["OPTIONS"] == {"connect_timeout": 3, "sslmode": "require", "pool": {"max_size": 9}}
    assert made["TEST"]["NAME"] == "t"
    assert made["TEST"]["MIRROR"] is None


def test_pass_is_password():
    assert build(POSTGRES, {"NAME": "acme", "PASS": "p"})["PASSWORD"] == "p"
    assert "PASS" not in build(POSTGRES, {"NAME": "acme", "PASS": "p"})
    assert problems(POSTGRES, {"NAME": "a", "PASS": "p", "PASSWORD": "q"}) == {
        "PASS": "and PASSWORD are the same setting: give one"
    }


@pytest.mark.parametrize("port", [6000, "6000", ""])
def test_the_port_may_be_text(port):
    assert build(POSTGRES, {"NAME": "acme", "PORT": port})["PORT"] == port


def test_the_host_may_be_a_socket_folder():
    assert build(POSTGRES, {"NAME": "acme", "HOST": "/run/pg"})["HOST"] == "/run/pg"


def test_a_url_is_taken_apart():
    made = build(POSTGRES, {"URL": "postgres://u%40x:p%2Fw@h.example:6000/na%20me?sslmode=require"})
    assert {key: made[key] for key in ("NAME", "USER", "PASSWORD", "HOST", "PORT")} == {
        "NAME": "na me",
        "USER": "u@x",
        "PASSWORD": "p/w",
        "HOST": "h.example",
        "PORT": 6000,
    }
    assert made["OPTIONS"] == {"connect_timeout": 3, "sslmode": "require"}
    assert "URL" not in made


@pytest.mark.parametrize("scheme", ["postgres", "postgresql"])
def test_what_a_url_does_not_say_comes_from_the_template(scheme):
    made = build(POSTGRES, {"URL": f"{scheme}:///acme"})
    assert (made["HOST"], made["PORT"], made["USER"], made["NAME"]) == ("db", 5432, "owner", "acme")


def test_a_socket_folder_in_a_url_keeps_its_letters():
    assert build(POSTGRES, {"URL": "postgres://u@%2FVar%2FRun/acme"})["HOST"] == "/Var/Run"


def test_keys_beside_a_url_win_over_it():
    made = build(POSTGRES, {"URL": "postgres://u:p@h/acme", "PASSWORD": "other", "CONN_MAX_AGE": None})
    assert (made["PASSWORD"], made["USER"], made["CONN_MAX_AGE"]) == ("other", "u", None)


@pytest.mark.parametrize(
    ("config", "where", "what"),
    [
        ({}, "NAME", "is missing"),
        ({"NAME": ""}, "NAME", "is missing"),
        ({"NAME": None}, "NAME", "is missing"),
        ({"NAME": 5}, "NAME", "is a int; give a name"),
        ({"NAME": "a", "URL": "postgres://h/b"}, "URL", "cannot both"),
        ({"URL": "postgres://h/"}, "URL", "names no database"),
        ({"URL": "postgres://h"}, "URL", "names no database"),
        ({"URL": "postgres://h:notaport/a"}, "URL", "names no database"),
        ({"URL": "mysql://h/a"}, "URL", "scheme 'mysql'"),
        ({"URL": "nonsense"}, "URL", "scheme"),
        ({"NAME": "a", "PORT": True}, "PORT", "is a bool"),
        ({"NAME": "a", "PORT": 5.5}, "PORT", "is a float"),
        ({"NAME": "a", "PORT": 65536}, "PORT", "no number of a port"),
        ({"NAME": "a", "PORT": "-1"}, "PORT", "no number of a port"),
        ({"NAME": "a", "PORT": "\u0665"}, "PORT", "no number of a port"),
        ({"NAME": "a", "OPTIONS": []}, "OPTIONS", "is a list"),
        ({"NAME": "a", "TEST": "x"}, "TEST", "is a str"),
        ({"NAME": "a", "ATOMIC_REQUESTS": "yes"}, "ATOMIC_REQUESTS", "is none of True, False"),
        ({"NAME": "a", "ATOMIC_REQUESTS": 1}, "ATOMIC_REQUESTS", "is none of True, False"),
        ({"NAME": "a", "CONN_MAX_AGE": "60"}, "CONN_MAX_AGE", "is no number"),
        ({"NAME": "a", "CONN_MAX_AGE": -1}, "CONN_MAX_AGE", "is no number"),
        ({"NAME": "a", "CONN_MAX_AGE": float("nan")}, "CONN_MAX_AGE", "is no number"),
        ({"NAME": "a", "TIME_ZONE": "../../etc/passwd"}, "TIME_ZONE", "is not a time zone"),
        ({"NAME": "a", "NAEM": "b"}, "NAEM", "did you mean 'NAME'"),
        ({"NAME": "a", "ENGINE": "django.db.backends.sqlite3"}, "ENGINE", "differs from the template's"),
        ({"NAME": "a", "ENGINE": "os.system"}, "ENGINE", "differs from the template's"),
    ],
)
def test_faults_name_the_key(config, where, what):
    assert what in problems(POSTGRES, config)[where]


def test_every_fault_is_listed_and_no_value_is_shown():
    found = problems(POSTGRES, {"PASSWORD": ["canary"], "OPTIONS": "canary", "PORT": False, "canary-key": "canary"})
    assert set(found) == {"PASSWORD", "OPTIONS", "PORT", "canary-key", "NAME"}
    assert "canary" not in " ".join(found.values())


def test_the_engines_that_are_allowed():
    engine = "django.contrib.gis.db.backends.postgis"
    assert build(POSTGRES, {"NAME": "a", "ENGINE": engine}, {engine})["ENGINE"] == engine
    assert build(POSTGRES, {"NAME": "a", "ENGINE": POSTGRES["ENGINE"]})["ENGINE"] == POSTGRES["ENGINE"]
    assert "ENGINE" in problems(POSTGRES, {"NAME": "a", "ENGINE": engine + "x"}, {engine})


def test_a_setting_of_a_third_party_backend_may_stand_in_the_template():
    template = {**POSTGRES, "SCHEMA": "x"}
    assert build(template, {"NAME": "a"})["SCHEMA"] == "x"
    assert "SCHEMA" in problems(template, {"NAME": "a", "SCHEMA": "y"})
    assert build(template, {"NAME": "a", "SCHEMA": "y"}, (), {"SCHEMA"})["SCHEMA"] == "y"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("/abs/x.db", "/abs/x.db"),
        ("x.db", str(settings.BASE_DIR / "x.db")),
        (":memory:", ":memory:"),
        ("file:x?mode=memory", "file:x?mode=memory"),
    ],
)
def test_where_a_sqlite_file_lies(name, expected):
    assert build(SQLITE, {"NAME": name})["NAME"] == expected


def test_a_sqlite_url():
    assert build(SQLITE, {"URL": "sqlite:////abs/x.db"})["NAME"] == "/abs/x.db"
    assert build(SQLITE, {"URL": "sqlite:///x.db"})["NAME"] == str(settings.BASE_DIR / "x.db")


def test_the_repr_shows_no_secret():
    made = build(POSTGRES, {"URL": "postgres://u:canary@h/acme", "OPTIONS": {"passfile": "canary"}}, (), ["passfile"])
    assert "canary" not in repr(made)
    assert "template-secret" not in repr(made)
    assert "acme" in repr(made)
