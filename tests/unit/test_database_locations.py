"""Whether two records lead to one database, however they spell it."""

import os

import pytest
from django.conf import settings

from tenant_router.orm_backends.django_orm.location import canonical_host, locations, of_settings

POSTGRES = {"ENGINE": "django.db.backends.postgresql", "NAME": "template", "HOST": "db", "PORT": 5432, "OPTIONS": {}}
LOCAL = {**POSTGRES, "HOST": "", "PORT": ""}
POSTGIS = "django.contrib.gis.db.backends.postgis"
MYSQL = {**POSTGRES, "ENGINE": "django.db.backends.mysql", "PORT": ""}
ORACLE = {**POSTGRES, "ENGINE": "django.db.backends.oracle", "PORT": 1521}
SQLITE = {"ENGINE": "django.db.backends.sqlite3", "NAME": "db.sqlite3"}
OTHER = {**POSTGRES, "ENGINE": "some.engine", "PORT": 7}
HERE = str(settings.BASE_DIR)


def one(template, config):
    (found,) = locations(template, config)
    return found


@pytest.mark.parametrize(
    ("template", "one_way", "other_way"),
    [
        (POSTGRES, {"NAME": "x"}, {"URL": "postgres://other:pw@db:5432/x"}),
        (POSTGRES, {"NAME": "x"}, {"URL": "POSTGRES://other:pw@DB/%78"}),
        (POSTGRES, {"NAME": "x"}, {"NAME": "x", "ENGINE": POSTGIS}),
        (POSTGRES, {"NAME": "x", "PORT": "5432"}, {"NAME": "x", "PORT": 5432}),
        (POSTGRES, {"NAME": "x", "PORT": "05432"}, {"NAME": "x", "PORT": ""}),
        (POSTGRES, {"NAME": "x", "HOST": "DB"}, {"NAME": "x", "HOST": "db."}),
        (POSTGRES, {"NAME": "x", "HOST": "bücher.example"}, {"NAME": "x", "HOST": "xn--bcher-kva.example"}),
        (POSTGRES, {"NAME": "x", "HOST": "::a:1"}, {"URL": "postgres://[0:0::000A:1]/x"}),
        (POSTGRES, {"NAME": "x", "HOST": "10.0.0.1"}, {"NAME": "x", "HOST": "::ffff:10.0.0.1"}),
        (POSTGRES, {"NAME": "x", "HOST": "10.0.0.1"}, {"NAME": "x", "HOST": "10.1"}),
        (POSTGRES, {"NAME": "x", "HOST": "10.0.0.1"}, {"NAME": "x", "HOST": "0xA000001"}),
        (POSTGRES, {"NAME": "x"}, {"NAME": "y", "OPTIONS": {"dbname": "x"}}),
        (LOCAL, {"NAME": "x"}, {"NAME": "x", "OPTIONS": {"host": "LOCALHOST"}}),
        (LOCAL, {"NAME": "x"}, {"NAME": "x", "HOST": "127.0.0.1", "PORT": 5432}),
        (LOCAL, {"NAME": "x"}, {"NAME": "x", "HOST": "[::1]"}),
        (LOCAL, {"NAME": "x"}, {"NAME": "x", "HOST": "127.1"}),
        (LOCAL, {"NAME": "x"}, {"NAME": "x", "HOST": "0.0.0.0"}),
        (LOCAL, {"NAME": "x"}, {"NAME": "x", "HOST": "/run/postgresql/"}),
        (LOCAL, {"NAME": "x"}, {"URL": "postgres://%2Ftmp/x"}),
        (POSTGRES, {"NAME": "x" * 63}, {"NAME": "x" * 64}),
        (MYSQL, {"NAME": "x"}, {"NAME": "x", "PORT": 3306}),
        (MYSQL, {"NAME": "x"}, {"NAME": "y", "OPTIONS": {"db": "x"}}),
        (MYSQL, {"NAME": "x"}, {"NAME": "x", "HOST": "other", "OPTIONS": {"host": "db"}}),
        (MYSQL, {"NAME": "x", "HOST": ""}, {"NAME": "x", "OPTIONS": {"unix_socket": "/tmp/mysql.sock"}}),
        (ORACLE, {"NAME": "X"}, {"NAME": "db:1521/x", "PORT": ""}),
        (ORACLE, {"NAME": "x"}, {"NAME": "//DB/x", "PORT": ""}),
        (OTHER, {"NAME": "x"}, {"NAME": "x", "HOST": "DB."}),
        (SQLITE, {"NAME": "x.db"}, {"NAME": os.path.join(HERE, "x.db")}),
        (SQLITE, {"NAME": "x.db"}, {"NAME": "y/../x.db"}),
        (SQLITE, {"NAME": "x.db"}, {"URL": "sqlite:///x.db"}),
        (SQLITE, {"NAME": "x.db"}, {"NAME": "file:x.db?mode=rw"}),
        (SQLITE, {"NAME": "x.db"}, {"NAME": f"file://{HERE}/%78.db#f"}),
        (SQLITE, {"NAME": "x.db"}, {"NAME": f"file://localhost{HERE}/x.db"}),
        (SQLITE, {"NAME": "x.db"}, {"NAME": "y.db", "OPTIONS": {"database": f"{HERE}/x.db"}}),
        (SQLITE, {"NAME": "file:m?mode=memory&cache=shared"}, {"NAME": "file:%6d?cache=shared&mode=memory"}),
        (SQLITE, {"NAME": "file::memory:?cache=shared"}, {"NAME": "file:%3Amemory:?cache=shared"}),
    ],
)
def test_two_spellings_of_one_database(template, one_way, other_way):
    assert one(template, one_way) == one(template, other_way)


def test_a_link_is_what_it_leads_to(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "real", target_is_directory=True)
    assert one(SQLITE, {"NAME": str(tmp_path / "link/x.db")}) == one(SQLITE, {"NAME": str(tmp_path / "real/x.db")})
    (tmp_path / "sockets").symlink_to("/run/postgresql")
    assert canonical_host(str(tmp_path / "sockets")) == "localhost"


def test_a_list_of_hosts_has_one_location_each():
    both = locations(POSTGRES, {"NAME": "x", "HOST": "a,B."})
    assert both == [("postgresql", "a", "5432", "x"), ("postgresql", "b", "5432", "x")]
    assert set(both) & set(locations(POSTGRES, {"NAME": "x", "HOST": "b"}))


def test_what_the_template_says_in_its_options_counts():
    template = {**LOCAL, "OPTIONS": {"host": "db", "port": 5432}}
    assert one(template, {"NAME": "x"}) == one(POSTGRES, {"NAME": "x"})
    assert of_settings(template) == locations(POSTGRES, {"NAME": "template"})


@pytest.mark.parametrize(
    ("template", "other"),
    [
        (POSTGRES, {"NAME": "y"}),
        (POSTGRES, {"NAME": "X"}),
        (POSTGRES, {"NAME": "x", "HOST": "h"}),
        (POSTGRES, {"NAME": "x", "PORT": 1}),
        (POSTGRES, {"NAME": "x", "HOST": "/run/another"}),
        (POSTGRES, {"NAME": "x", "ENGINE": MYSQL["ENGINE"]}),
        (SQLITE, {"NAME": "y"}),
        (SQLITE, {"NAME": "file:x?mode=memory&cache=shared"}),
    ],
)
def test_two_databases(template, other):
    assert one(template, {"NAME": "x"}) != one(template, other)


@pytest.mark.parametrize(
    ("template", "config"),
    [
        (POSTGRES, {}),
        (POSTGRES, {"NAME": ""}),
        (POSTGRES, {"NAME": 5}),
        (POSTGRES, {"NAME": "x", "ENGINE": 5}),
        (POSTGRES, {"URL": "postgres://h"}),
        (POSTGRES, {"URL": "postgres://[::1/x"}),
        (POSTGRES, {"URL": 5}),
        (SQLITE, {"NAME": ":memory:"}),
        (SQLITE, {"NAME": "file::memory:"}),
        (SQLITE, {"NAME": "file:x?mode=memory"}),
    ],
)
def test_what_leads_to_no_database_that_others_can_reach(template, config):
    assert locations(template, config) == []


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "file:a%00b", "file:\ud800", "sqlite:///a%00b"])
def test_a_name_that_no_file_can_have_raises_nothing(name):
    assert len(list(locations(SQLITE, {"URL" if "://" in name else "NAME": name}))) == 1
    assert canonical_host(f"/{name}")


def test_oracle_takes_no_notice_of_a_host_without_a_port():
    template = {**ORACLE, "PORT": ""}
    assert one(template, {"NAME": "SALES", "HOST": "a"}) == one(template, {"NAME": "sales", "HOST": "b"})
    assert one(ORACLE, {"NAME": "SALES", "HOST": "a"}) != one(ORACLE, {"NAME": "SALES", "HOST": "b"})


@pytest.mark.parametrize("bad", [{"OPTIONS": 5}, {"HOST": 5}, {"PORT": []}, {"OPTIONS": {"host": {}}}, {"HOST": None}])
def test_a_bad_record_raises_nothing(bad):
    locations(POSTGRES, {"NAME": "x", **bad})
