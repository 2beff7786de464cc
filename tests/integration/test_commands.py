"""Management commands, each in a process of its own, against a real Redis."""

import json
import os
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from django.core.management import BaseCommand, call_command

from tenant_router.context_decorators import tenant_context_bind
from tenant_router.managers import tenant_context_manager
from tenant_router.managers.task_local import tls_tenant_manager
from tests.servers import free_port

ROOT = Path(__file__).resolve().parent.parent.parent
REDIS_STORE = "tenant_router.config_store.backends.redis.RedisStore"
CANARY = "canary-5f3a"
NOBODYS_PORT = 1  # which nobody listens on


class Outcome:
    """What a command printed and how it ended."""

    def __init__(self, done):
        self.code, self.out, self.err = done.returncode, done.stdout, done.stderr

    def __repr__(self):
        return f"exit {self.code}\n--- stdout\n{self.out}\n--- stderr\n{self.err}"

    @property
    def error(self):
        """The lines of the error, without what was logged."""
        lines = [line for line in self.err.splitlines() if not re.match(r"(INFO|WARNING|ERROR|CRITICAL) ", line)]
        return "\n".join(lines)


class Project:
    """The tests' project over one Redis database, in ``directory``."""

    def __init__(self, directory, url, **environment):
        self.directory, self.url = directory, url
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith(("TESTS_", "TENANT_", "DJANGO_"))},
            "TESTS_STORE": REDIS_STORE,
            "TESTS_REDIS_URL": url,
            "TESTS_CENTRAL": str(directory / "central.db"),
            "PYTHONPATH": f"{directory}{os.pathsep}{ROOT}",
            **environment,
        }

    def run(self, *args, stdin=None, code=0, **environment):
        """Run ``manage.py``; ``code`` is the exit code that is expected."""
        done = subprocess.run(
            [sys.executable, "-W", "error::RuntimeWarning", str(ROOT / "tests/manage.py"), *args],
            input=stdin if stdin is not None else "",
            capture_output=True,
            text=True,
            timeout=120,
            cwd=self.directory,
            env={**self.environment, **environment},
        )
        outcome = Outcome(done)
        assert outcome.code == code, outcome
        assert "Traceback" not in outcome.err, outcome
        return outcome

    def settings(self, text, name="own_settings"):
        """The same project with ``text`` appended to its settings."""
        (self.directory / f"{name}.py").write_text(f"from tests.settings import *\n{text}\n")
        return Project(self.directory, self.url, DJANGO_SETTINGS_MODULE=name)

    def database(self, name):
        return str(self.directory / f"{name}.db")

    def config(self, *names, **more):
        """The text of a configuration file with tenants of these names."""
        section = {name: {"tests": {"orm_config": self.orm(name)}} for name in names}
        return json.dumps({"mapping_metadata": {}, "tenant_config": section, **more})

    def orm(self, name, **more):
        return {"django_orm": {"default": {"NAME": self.database(name), **more}}}

    def load(self, *names, **kwargs):
        return self.run("load_tenant_config", "-f", "-", stdin=self.config(*names), **kwargs)

    def tables(self, name):
        return query(self.database(name), "SELECT name FROM sqlite_master WHERE type = 'table'")

    def tenants(self):
        return [[row["id"], row["state"]] for row in json.loads(self.run("tenant", "list", "--json").out)]


def query(path, sql):
    if not Path(path).exists():
        return []
    with closing(sqlite3.connect(path)) as plain:
        return [row[0] for row in plain.execute(sql)]


@pytest.fixture
def project(redis_server, tmp_path):
    """A project whose store is empty."""
    return Project(tmp_path, emptied(redis_server, 7))


def emptied(redis_server, db):
    """The URL of a database, which is made empty, for clients that wait for a server that stands still."""
    with redis_server.client(db=db) as client:
        client.flushdb()
    return f"{redis_server.url.removesuffix('/0')}/{db}?socket_timeout=30"


@pytest.fixture(scope="module")
def served(redis_server, tmp_path_factory):
    """A project with two migrated tenants, for tests that only read, and some that write to one table."""
    made = Project(tmp_path_factory.mktemp("served"), emptied(redis_server, 8))
    made.load("a.test", "b.test")
    made.run("migrate_all")
    return made


def revision(redis_server, db=7):
    with redis_server.client(db=db) as client:
        keys = client.keys("*:meta")
        return int(client.hget(keys[0], "rev")) if keys else 0


# --- load_tenant_config ---


def test_load_says_what_it_did_and_a_second_run_changes_nothing(project, redis_server):
    first = project.load("a.test", "b.test")
    assert first.out.splitlines()[:2] == ["created   a.test", "created   b.test"]
    at = int(re.search(r"revision (\d+)", first.out)[1])
    assert at == revision(redis_server)
    again = project.load("a.test", "b.test")
    assert "revision 3: 2 tenants and the mapping_metadata written" in first.out
    assert again.out.splitlines() == ["unchanged a.test", "unchanged b.test", f"revision {at}, nothing changed"]
    assert revision(redis_server) == at
    text = project.config("a.test", "b.test").replace("b.test.db", "moved.db")
    third = project.run("load_tenant_config", "-f", "-", "--include-tenant-metadata", stdin=text)
    assert third.out.splitlines() == [
        "changed   b.test (another database)",
        "unchanged a.test",
        f"revision {revision(redis_server)}: 1 tenant written",
        "not migrated by this command (see --migrate, migrate_all): b.test",
    ]


def test_load_merges_and_flush_all_makes_the_file_the_whole_truth(project):
    project.load("a.test", "b.test")
    assert "unchanged" not in project.load("c.test").out
    assert [name for name, _ in project.tenants()] == ["a.test", "b.test", "c.test"]
    done = project.run("load_tenant_config", "-f", "-", "--flush-all", "--yes", stdin=project.config("c.test"))
    assert done.out.splitlines()[:3] == ["unchanged c.test", "removed   a.test", "removed   b.test"]
    assert project.tenants() == [["c.test", "active"]]
    # what was deleted can come back
    assert "created   a.test" in project.load("a.test").out


def test_a_dry_run_writes_nothing(project, redis_server):
    done = project.run("load_tenant_config", "-f", "-", "--dry-run", stdin=project.config("a.test"))
    assert done.out.splitlines()[0] == "created   a.test"
    assert "nothing was written" in done.out
    assert revision(redis_server) == 0


def test_where_the_file_is_looked_up(project):
    own = project.settings(f"BASE_DIR = __import__('pathlib').Path({str(project.directory)!r})")
    (project.directory / "tenant_config.json").write_text(project.config("a.test"))
    (project.directory / "other.json").write_text(project.config("b.test"))
    assert "created   a.test" in own.run("load_tenant_config").out
    assert "created   b.test" in own.run("load_tenant_config", "-f", "other.json").out
    assert (
        "unchanged a.test" in project.run("load_tenant_config", "-f", str(project.directory / "tenant_config.json")).out
    )


def test_load_with_migrate_activates_what_was_migrated(project):
    text = json.loads(project.config("a.test"))
    text["tenant_config"]["bad.test"] = {"tests": {"orm_config": project.orm("no/such/folder/x")}}
    done = project.run("load_tenant_config", "-f", "-", "--migrate", stdin=json.dumps(text), code=1)
    assert "bad.test" in done.error
    assert project.tenants() == [["a.test", "active"], ["bad.test", "provisioning"]]
    assert "app_note" in project.tables("a.test")


def test_load_skips_the_sections_of_other_services(project):
    text = json.loads(project.config("a.test"))
    text["tenant_config"]["b.test"] = {"billing": {"orm_config": {}}}
    done = project.run("load_tenant_config", "-f", "-", stdin=json.dumps(text))
    assert "skipped   1 section(s) of service 'billing'" in done.out
    assert project.tenants() == [["a.test", "active"]]


def wrapped(section, name="a.test"):
    return {"mapping_metadata": {}, "tenant_config": {name: {"tests": section}}}


def bad_default(**default):
    return wrapped({"orm_config": {"django_orm": {"default": {"NAME": "/tmp/x.db", **default}}}})


BAD_FILES = {
    "empty": ("", "empty|not JSON|Expecting"),
    "not JSON": ("{nonsense", "JSON|property name|line 1"),
    "duplicate keys": ('{"mapping_metadata": {}, "mapping_metadata": {}}', "'mapping_metadata' is given 2 times"),
    "trailing garbage": ('{"mapping_metadata": {}} x', "ends before the file does"),
    "no mapping_metadata": ({"tenant_config": {}}, "mapping_metadata"),
    "no wrapper": ({"a.test": {"tests": {"orm_config": {}}}}, "tenant_config"),
    "unknown top-level key": ({"mapping_metadata": {}, "tenants": {}}, "tenants"),
    "unknown template alias": (wrapped({"orm_config": {"django_orm": {"defualt": {"NAME": "x"}}}}), "defualt"),
    "reserved alias": (
        wrapped({"orm_config": {"django_orm": {"default": {"NAME": "x"}, "central": {"NAME": "y"}}}}),
        "central.*reserved",
    ),
    "unknown ORM": (wrapped({"orm_config": {"django_rom": {"default": {"NAME": "x"}}}}), "django_rom"),
    "another engine": (bad_default(ENGINE="django.db.backends.oracle"), "ENGINE.*differs"),
    "no name": (wrapped({"orm_config": {"django_orm": {"default": {}}}}), "NAME"),
    "wrong type": (bad_default(OPTIONS=[1]), "OPTIONS"),
    "misspelt key": (bad_default(PASWORD=CANARY), "PASWORD"),
    "invalid id": (wrapped({"orm_config": {"django_orm": {"default": {"NAME": "x"}}}}, "Tenant_1"), "Tenant_1"),
    "dotted id": (wrapped({"orm_config": {"django_orm": {"default": {"NAME": "x"}}}}, "a..b"), r"a\.\.b"),
    "unknown cache": (wrapped({**bad_default()["tenant_config"]["a.test"]["tests"], "cache_config": {"x": {}}}), "'x'"),
    "no section of ours": ({"mapping_metadata": {}, "tenant_config": {"a.test": {"billing": {}}}}, "tests"),
}


# Runs many commands in one process: a list of [arguments, standard input] in, a list of outcomes out.
MANY = """
import contextlib, io, json, sys
from django.core.management import ManagementUtility
outcomes = []
for args, text in json.load(open(sys.argv[1])):
    out, err, code = io.StringIO(), io.StringIO(), 0
    sys.stdin = io.TextIOWrapper(io.BytesIO(text.encode()))
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            ManagementUtility(["manage.py", *args]).execute()
        except SystemExit as end:
            code = end.code
    outcomes.append([code, out.getvalue(), err.getvalue()])
print(json.dumps(outcomes))
"""


@pytest.fixture(scope="module")
def refused(redis_server, tmp_path_factory):
    """The outcome of loading each bad file into an empty store, by its name."""
    made = Project(tmp_path_factory.mktemp("bad"), emptied(redis_server, 9))
    texts = [content if isinstance(content, str) else json.dumps(content) for content, _ in BAD_FILES.values()]
    todo = made.directory / "todo.json"
    todo.write_text(json.dumps([[["load_tenant_config", "-f", "-"], text] for text in texts]))
    environment = {**made.environment, "DJANGO_SETTINGS_MODULE": "tests.settings"}
    done = subprocess.run(
        [sys.executable, "-c", MANY, str(todo)], capture_output=True, text=True, timeout=120, env=environment
    )
    assert done.returncode == 0, done.stderr
    found = [subprocess.CompletedProcess([], *outcome) for outcome in json.loads(done.stdout)]
    return dict(zip(BAD_FILES, map(Outcome, found), strict=True))


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_is_refused_and_nothing_is_written(refused, redis_server, name):
    done = refused[name]
    assert done.code == 1
    assert re.search(BAD_FILES[name][1], done.error), done
    assert "nothing was written" in done.error
    assert CANARY not in done.out + done.err
    assert revision(redis_server, db=9) == 0


def test_all_faults_are_listed_with_their_paths(project, redis_server):
    text = json.loads(project.config("good.test"))
    text["tenant_config"]["a.test"] = {"tests": {"orm_config": {"django_orm": {"default": {"NAME": 5}}}}}
    text["tenant_config"]["b.test"] = {"tests": {"orm_config": {"django_orm": {"default": {"PORT": True}}}}}
    engine = {"NAME": "x", "ENGINE": 5}
    text["tenant_config"]["c.test"] = {"tests": {"orm_config": {"django_orm": {"default": engine}}}}
    done = project.run("load_tenant_config", "-f", "-", stdin=json.dumps(text), code=1)
    assert "4 errors in -, nothing was written" in done.error
    for path in ("['a.test'].tests.orm_config.django_orm.default.NAME", "['b.test']", "default.PORT", "default.ENGINE"):
        assert path in done.error, done
    assert revision(redis_server) == 0


def test_two_tenants_with_one_database_are_refused(project):
    text = project.config("a.test", "b.test").replace("b.test.db", "a.test.db")
    done = project.run("load_tenant_config", "-f", "-", stdin=text, code=1)
    assert "ALLOW_SHARED_DATABASES" in done.error
    project.load("a.test")
    alone = project.config("b.test").replace("b.test.db", "a.test.db")
    assert "a.test" in project.run("load_tenant_config", "-f", "-", stdin=alone, code=1).error


def test_a_missing_file_a_folder_and_wrong_usage(project):
    done = project.run("load_tenant_config", "-f", "nowhere.json", code=1)
    assert "nowhere.json" in done.error
    assert "BASE_DIR" in done.error
    project.run("load_tenant_config", "-f", str(project.directory) + "/", code=1)
    assert "usage:" in project.run("load_tenant_config", "--no-such-option", code=2).err


def test_a_file_above_the_limit_is_refused(project):
    with (project.directory / "huge.json").open("wb") as file:
        file.truncate(256 * 2**20 + 1)
    done = project.run("load_tenant_config", "-f", str(project.directory / "huge.json"), code=1)
    assert "larger than 268,435,456 bytes" in done.error


def test_ids_that_give_one_alias_are_refused(project):
    own = project.settings(
        "DATABASES = {name: dict(DATABASES['default']) for name in ('x', 'a_x')} | {'default': DATABASES['central']}\n"
        "TENANT_ROUTER_ORM_SETTINGS = {'django_orm': {'SETTINGS_KEY': 'DATABASES', 'OPTIONS': "
        "{'RESERVED_CONN_ALIASES': {'default'}, 'DEFAULT_TEMPLATE_ALIAS': 'x'}}}"
    )

    def section(name):
        orm = {alias: {"NAME": project.database(f"{name}-{alias}")} for alias in ("x", "a_x")}
        return {"tests": {"orm_config": {"django_orm": orm}}}

    one = {"mapping_metadata": {}, "tenant_config": {"t": section("t")}}
    both = {"mapping_metadata": {}, "tenant_config": {"t": section("t"), "t_a": section("t_a")}}
    other = {"mapping_metadata": {}, "tenant_config": {"t_a": section("t_a")}}
    assert "alias" in own.run("load_tenant_config", "-f", "-", stdin=json.dumps(both), code=1).error
    own.run("load_tenant_config", "-f", "-", stdin=json.dumps(one))
    assert "alias" in own.run("load_tenant_config", "-f", "-", stdin=json.dumps(other), code=1).error


# --- the store ---


def test_an_unreachable_store_is_one_line(project):
    away = f"redis://:{CANARY}@127.0.0.1:{NOBODYS_PORT}/0"
    for args in (["load_tenant_config", "-f", "-"], ["tenant", "list"], ["migrate_all"], ["check", "--tenant-id", "a"]):
        done = project.run(*args, stdin=project.config("a.test"), code=1, TESTS_REDIS_URL=away)
        assert len(done.error.strip().splitlines()) == 1, done
        assert CANARY not in done.out + done.err


def test_an_empty_store_is_one_line_that_says_what_to_do(project):
    done = project.run("migrate_all", code=1)
    assert "load_tenant_config" in done.error
    assert project.run("tenant", "list").out.split() == ["TENANT", "STATE", "REVISION", "DATABASES"]
    assert "has no tenant 'a.test'" in project.run("tenant", "show", "a.test", code=1).error


def test_a_wrong_type_of_key_is_one_line(project, redis_server):
    project.load("a.test")
    with redis_server.client(db=7) as client:
        name = client.keys("*:idx")[0]
        client.delete(name)
        client.set(name, "x")
    for args in (["load_tenant_config", "-f", "-"], ["migrate_all"], ["tenant", "list"]):
        done = project.run(*args, stdin=project.config("b.test"), code=1)
        assert len(done.error.strip().splitlines()) == 1, done


@pytest.mark.parametrize(
    "args", [["check"], ["makemigrations", "--check", "--dry-run"], ["--help"], ["migrate", "--help"]]
)
def test_build_time_commands_do_no_io(project, args):
    away = f"redis://127.0.0.1:{NOBODYS_PORT}/0"
    project.run(*args, TESTS_REDIS_URL=away)


def test_collectstatic_does_no_io(project):
    own = project.settings(
        f"STATIC_ROOT = {str(project.directory / 'static')!r}\nINSTALLED_APPS.append('django.contrib.staticfiles')"
    )
    own.run("collectstatic", "--noinput", "-v0", TESTS_REDIS_URL=f"redis://127.0.0.1:{NOBODYS_PORT}/0")
    assert (project.directory / "static" / "admin").is_dir()


def test_makemigrations_below_a_router_that_answers_for_the_template(project):
    (project.directory / "typical.py").write_text(
        "class Router:\n"
        "    def allow_migrate(self, db, app_label, **hints):\n"
        "        return (db == 'central') == (app_label == 'central_app')\n"
    )
    own = project.settings("DATABASE_ROUTERS = ['typical.Router', *DATABASE_ROUTERS]")
    own.run("makemigrations", "--check", "--dry-run", TESTS_REDIS_URL=f"redis://127.0.0.1:{NOBODYS_PORT}/0")


# --- tenant list, show, delete ---


def test_tenant_show_masks_secrets(project):
    text = json.loads(project.config("a.test"))
    text["tenant_config"]["a.test"]["tests"] = {
        "orm_config": project.orm("a.test", PASSWORD=CANARY),
        "cache_config": {"default": {"LOCATION": f"redis://u:{CANARY}@h/0?password={CANARY}"}},
        "x-billing": {"passphrase": CANARY, "where": [f"https://h/?token={CANARY}"]},
    }
    assert CANARY not in repr(project.run("load_tenant_config", "-f", "-", stdin=json.dumps(text)))
    done = project.run("tenant", "show", "a.test")
    shown = json.loads(done.out)
    assert CANARY not in done.out + done.err
    assert (shown["id"], shown["state"]) == ("a.test", "active")
    assert shown["orm_config"]["django_orm"]["default"]["NAME"] == project.database("a.test")


def test_tenant_check(project):
    project.load("a.test", "b.test")
    assert project.run("tenant", "check", "a.test").out.splitlines()[0] == "django_orm\tdefault\tok"
    Path(project.database("b.test")).mkdir()
    done = project.run("tenant", "check", "b.test", code=1)
    assert done.out.startswith("django_orm\tdefault\tOperationalError: unable to open database file")
    assert "do not answer" in done.error
    assert "'nobody'" in project.run("tenant", "check", "nobody", code=1).error


def test_tenant_delete(project, redis_server):
    project.load("a.test", "b.test")
    Path(project.database("a.test")).write_text("")
    assert "deleted a.test, revision" in project.run("tenant", "delete", "a.test", "--yes").out
    assert Path(project.database("a.test")).exists()
    assert project.tenants() == [["b.test", "active"]]
    at = revision(redis_server)
    assert "was deleted" in project.run("tenant", "delete", "a.test", "--yes", code=1).error
    assert "no tenant 'nobody' is known" in project.run("tenant", "delete", "nobody", "--yes", code=1).error
    assert "was deleted" in project.run("tenant", "show", "a.test", code=1).error
    assert revision(redis_server) == at
    project.run("tenant", code=2)


def test_tenant_list_is_aligned_has_a_header_and_no_secret(project):
    text = json.loads(project.config("a.test", "longer-name.test"))
    section = text["tenant_config"]["a.test"]["tests"]
    section["orm_config"] = project.orm("a.test", PASSWORD=CANARY)
    project.run("load_tenant_config", "-f", "-", stdin=json.dumps(text))
    project.run("tenant", "suspend", "longer-name.test")
    done = project.run("tenant", "list")
    header, first, second = done.out.splitlines()
    assert header.split() == ["TENANT", "STATE", "REVISION", "DATABASES"]
    assert first.split() == ["a.test", "active", "2", f"django_orm.default=sqlite/{project.database('a.test')}"]
    assert [line.index(word) for line, word in ((header, "STATE"), (first, "active"), (second, "suspended"))] == [
        18
    ] * 3
    shown = project.run("tenant", "list", "--json")
    assert CANARY not in done.out + shown.out
    assert json.loads(shown.out)[1] == {
        "id": "longer-name.test",
        "state": "suspended",
        "revision": 4,
        "databases": {"django_orm.default": f"sqlite/{project.database('longer-name.test')}"},
    }


STORE_COMMANDS = [
    ["load_tenant_config", "-f", "-"],
    ["tenant", "--tenant-id", "a.test", "list"],
    ["tenant_status"],
    ["tenant_store", "--tenant-id", "a.test", "show"],
]


@pytest.mark.parametrize("args", STORE_COMMANDS, ids=lambda args: args[0])
def test_what_is_about_all_tenants_takes_none(project, args):
    option = [] if "--tenant-id" in args else ["--tenant-id", "a.test"]
    done = project.run(*args, *option, stdin=project.config("a.test"), code=2)
    assert re.fullmatch(rf"CommandError: {args[0]} .*: it takes no --tenant-id", done.error.strip())


def test_the_environment_binds_no_command_that_is_about_all_tenants(project):
    assert "created   a.test" in project.load("a.test", TENANT_ID="nobody").out


# --- migrate_all and migrate ---


def test_migrate_all_goes_on_past_a_failing_tenant(project):
    # defect (k): the error of a tenant was swallowed, and the exit code was 0
    text = json.loads(project.config("a.test", "z.test"))
    text["tenant_config"]["m.test"] = {"tests": {"orm_config": project.orm("no/such/folder/x")}}
    project.run("load_tenant_config", "-f", "-", stdin=json.dumps(text))
    done = project.run("migrate_all", code=1)
    ok = {f"{alias} (django_orm): ok" for alias in ("a.test_default", "z.test_default", "central")}
    assert ok <= set(done.out.splitlines())
    assert "m.test_default (django_orm): FAILED OperationalError: " in done.out
    assert "1 of the migrations failed: m.test_default (django_orm)" in done.error
    for name in ("a.test", "z.test"):
        assert {"app_note", "auth_user"} <= set(project.tables(name))
        assert "app_plan" not in project.tables(name)
    assert "app_plan" in project.tables("central")
    assert "app_note" not in project.tables("central")


def test_migrate_all_plan_changes_nothing(project):
    project.load("a.test")
    done = project.run("migrate_all", "--plan")
    assert "app.0001_initial" in done.out
    assert set(project.tables("a.test")) <= {"django_migrations"}


def test_migrate_all_of_chosen_tenants(project):
    project.load("a.test", "b.test", "c.test", "d.test")
    assert "central" not in project.run("migrate_all", "--tenant-id", "a.test", "--tenant-id", "b.test").out
    project.run("migrate_all", TENANT_ID="c.test")
    tables = {name: "app_note" in project.tables(name) for name in ("a.test", "b.test", "c.test", "d.test")}
    assert tables == {"a.test": True, "b.test": True, "c.test": True, "d.test": False}
    assert not Path(project.database("central")).exists()
    assert "d.test_default (django_orm): ok" in project.run("migrate_all", "--exclude-reserved-aliases").out
    assert not Path(project.database("central")).exists()


def test_migrate_all_of_an_unknown_tenant_migrates_nothing(project):
    project.load("a.test")
    done = project.run("migrate_all", "--tenant-id", "a.test", "nobody", code=1)
    assert "no tenant 'nobody' is known; nothing was migrated" in done.error
    assert project.tables("a.test") == []


def test_migrate_all_takes_suspended_and_provisioning_tenants_and_goes_past_a_bad_record(project, redis_server):
    project.load("a.test")
    script = (
        "from tenant_router import runtime; from tenant_router.lifecycle import Writer; "
        "from tenant_router.config_store.base import Op; import uuid; r = runtime.get(); "
        "Writer(r).set_state(['a.test'], 'S'); "
        "r.store.commit([Op('bad.test', 'A', b'garbage')], request_id=uuid.uuid4().hex)"
    )
    project.run("shell", "-c", script)
    done = project.run("migrate_all", code=1)
    assert "a.test_default (django_orm): ok" in done.out
    assert "bad.test: FAILED" in done.out
    assert "app_note" in project.tables("a.test")


def test_a_database_is_named_by_a_tenants_alias(project):
    project.load("a.test")
    project.run("migrate", "--database", "a.test_default", "-v0")
    assert "app_note" in project.tables("a.test")
    assert "[X] 0001_initial" in project.run("showmigrations", "app", "--database", "a.test_default").out
    assert "alias 'b.test_default'" in project.run("migrate", "--database", "b.test_default", code=1).error
    assert "invalid choice" in project.run("migrate", "--database", "nothing", code=2).err


def test_migrate_refuses_and_names_migrate_all(project):
    project.load("a.test")
    for args in ([], ["--database", "default"], ["app"]):
        assert "migrate_all" in project.run("migrate", *args, code=1).error
    project.run("migrate", "--tenant-id", "a.test", "-v0")
    assert "app_note" in project.tables("a.test")
    project.run("migrate", "--database", "central", "-v0")
    assert "app_plan" in project.tables("central")
    assert "no tenant 'nobody'" in project.run("migrate", "--tenant-id", "nobody", code=1).error


def test_a_custom_migration_assistant_is_run(project):
    (project.directory / "own_assistant.py").write_text(
        "from tenant_router.orm_backends.base import BaseOrmMigrationAsst\n"
        "class Custom(BaseOrmMigrationAsst):\n"
        "    def perform_migrate(self):\n"
        "        self.run.write(f'custom {self.options} {[c.id for c in self.run.contexts]}')\n"
    )
    own = project.settings(
        "TENANT_ROUTER_ORM_SETTINGS['django_orm']['OPTIONS']['MIGRATION_ASST'] = "
        "{'CLASS': 'own_assistant.Custom', 'OPTIONS': {'jobs': 3}}"
    )
    own.load("a.test")
    assert "custom {'jobs': 3} ['a.test']" in own.run("migrate_all").out


# --- every other command ---


def test_a_call_by_alias(served):
    script = (
        "from django.core.management import call_command; "
        "call_command('migrate', database='a.test_default', verbosity=0); "
        "call_command('showmigrations', 'app', database='b.test_default')"
    )
    assert "[X] 0001_initial" in served.run("shell", "-c", script).out


def test_showmigrations(served):
    assert "no tenant is bound here. Give --tenant-id" in served.run("showmigrations", code=1).error
    assert "[X] 0001_initial" in served.run("showmigrations", "app", "--tenant-id", "a.test").out
    assert "[X] 0001_initial" in served.run("showmigrations", "app", TENANT_ID="b.test").out


def test_check_of_a_database(served):
    served.run("check")
    served.run("check", "--tenant-id", "a.test", "--database", "default")
    served.run("check", "--database", "central")
    served.run("check", "--database", "default")


def test_makemigrations_with_and_without_a_tenant(served):
    assert "No changes detected" in served.run("makemigrations", "--check", "--dry-run").out
    assert "No changes detected" in served.run("makemigrations", "--check", "--dry-run", "--tenant-id", "a.test").out


def test_createsuperuser_dumpdata_flush_and_loaddata(project):
    project.load("a.test", "b.test")
    project.run("migrate_all", "-v0")
    own = {"DJANGO_SUPERUSER_PASSWORD": "p"}
    args = ["createsuperuser", "--noinput", "--username", "ann", "--email", "a@b.example"]
    assert "Give --tenant-id" in project.run(*args, code=1, **own).error
    project.run(*args, "--tenant-id", "a.test", **own)
    project.run("shell", "-c", "from tests.app.models import Note; Note.objects.create(text='x')", TENANT_ID="a.test")

    assert "Give --tenant-id" in project.run("dumpdata", "app", code=1).error
    dump = project.run("dumpdata", "app.note", "auth.user", "--tenant-id", "a.test").out
    assert [row["model"] for row in json.loads(dump)] == ["app.note", "auth.user"]
    fixture = project.directory / "dump.json"
    fixture.write_text(dump)
    assert "Give --tenant-id" in project.run("loaddata", str(fixture), code=1).error
    assert "Installed 2 object(s)" in project.run("loaddata", str(fixture), "--tenant-id", "b.test").out
    assert query(project.database("b.test"), "SELECT username FROM auth_user") == ["ann"]

    assert "Give --tenant-id" in project.run("flush", "--noinput", code=1).error
    project.run("flush", "--noinput", "--tenant-id", "a.test")
    assert query(project.database("a.test"), "SELECT text FROM app_note") == []
    assert query(project.database("b.test"), "SELECT text FROM app_note") == ["x"]


def test_dbshell_without_a_tenant_is_refused(served):
    assert "Give --tenant-id ID, or TENANT_ID=ID" in served.run("dbshell", code=1).error
    assert not (ROOT / "tests" / "template-must-not-be-opened").exists()


def test_an_unknown_tenant_is_one_line(served):
    for environment in ({}, {"TENANT_ID": "nobody"}):
        args = [] if environment else ["--tenant-id", "nobody"]
        done = served.run("showmigrations", *args, code=1, **environment)
        assert done.error.strip() == "CommandError: no tenant 'nobody' is known"


WHOLE_PROCESS = """
import multiprocessing, threading
from django.db import connection
def where():
    print(connection.settings_dict["NAME"], flush=True)
where()
thread = threading.Thread(target=where)
thread.start(), thread.join()
child = multiprocessing.get_context("fork").Process(target=where)
child.start(), child.join()
"""


def test_a_tenant_is_bound_for_the_whole_process_of_a_command(served):
    done = served.run("shell", "-v0", "-c", WHOLE_PROCESS, "--tenant-id", "a.test")
    assert done.out.splitlines() == [served.database("a.test")] * 3


SESSION = """
from tenant_router.managers.task_local import tls_tenant_manager
from tenant_router.managers import tenant_context_manager
from tenant_router.context_decorators import tenant_context_bind
from tests.app.models import Note
tls_tenant_manager.push_tenant_context(
tenant_context_manager.get_by_id('a.test'))
print(Note.objects.db_manager().create(text='of a')._state.db)
tls_tenant_manager.pop_tenant_context()
with tenant_context_bind('b.test'):
    print(Note.objects.count(), Note(text='x').text)
"""


def test_the_reference_shell_session(served):
    assert served.run("shell", "-c", SESSION).out.splitlines()[-2:] == ["a.test_default", "0 x"]


def test_the_reference_shell_session_typed(served):
    typed = SESSION.replace("'of a'", "'typed'").strip() + "\n\nquit()\n"
    done = served.run("shell", "-i", "python", stdin=typed)
    assert "a.test_default" in done.out, done


def test_a_query_in_a_shell_without_a_context_shows_what_to_type(served):
    script = (
        "from tests.app.models import Note\n"
        "try:\n    Note.objects.count()\nexcept Exception as error:\n    print(type(error).__name__, error)"
    )
    out = served.run("shell", "-c", script).out
    assert "TenantContextMissing" in out
    assert "from tenant_router.context_decorators import tenant_context_bind" in out
    done = served.run("shell", "-c", "from tests.app.models import Note; Note.objects.count()", code=1)
    assert "Give --tenant-id" in done.error


def test_a_server_takes_no_tenant(served):
    for args, environment in ((["--tenant-id", "a.test"], {}), ([], {"TENANT_ID": "a.test"})):
        done = served.run("runserver", "--noreload", *args, str(free_port()), code=1, **environment)
        assert "serves all tenants" in done.error


def test_a_server_without_its_store_stops_with_one_line(project):
    done = project.run("runserver", "--noreload", str(free_port()), code=1)
    assert "load_tenant_config" in done.error
    assert len(done.error.strip().splitlines()) == 1, done


# --- what is logged ---


def test_the_documented_logging_shows_changes_and_djangos_own_does_not(project):
    documented = (ROOT / "docs" / "operations.md").read_text("utf-8")
    (lines,) = re.findall(r"^```python\n(LOGGING = .*?)^```", documented, re.MULTILINE | re.DOTALL)
    project.load("a.test")
    script = """
import time
from tenant_router import runtime
from tenant_router.lifecycle import Writer
from tenant_router.managers import tenant_context_manager
tenant_context_manager.get_by_id("a.test")
revision = Writer(runtime.get()).set_state(["a.test"], "A")
while runtime.get().pipeline.revision_of("a.test") < revision:
    time.sleep(0.01)
"""
    for name, settings in (("shown", lines), ("default", "LOGGING = {}")):
        done = project.settings(settings, name).run("shell", "-c", script)
        assert ("applied tenant=a.test revision=" in done.err) is (name == "shown"), done


# --- bootstrap ---


def test_bootstrap_callables_are_dotted_paths_and_run_once_in_order(project):
    # defect (p): the strings were called
    (project.directory / "boot.py").write_text("def one():\n    print('one')\ndef two():\n    print('two')\n")
    own = project.settings("TENANT_ROUTER_BOOTSTRAP_SETTINGS = ['boot.one', 'boot.two']")
    assert own.run("check").out.splitlines()[:2] == ["one", "two"]
    again = own.run("shell", "-v0", "-c", "import django; django.setup(); print('end')")
    assert again.out.splitlines() == ["one", "two", "end"]


def test_incomplete_settings_stop_every_command_but_check(project):
    own = project.settings("del TENANT_ROUTER_SERVICE_NAME")
    assert "python manage.py check" in own.run("migrate_all", code=1).error
    done = own.run("check", code=1)
    assert "tenant_router.E001" in done.err
    assert "TENANT_ROUTER_SERVICE_NAME" in done.err


# --- the whole process ---


@pytest.mark.parametrize("way", ["option", "environment"])
def test_what_a_commands_process_starts_finds_its_tenant(served, way):
    """Threads, executors and children of multiprocessing, however they are started."""
    code = "from tests.children import start_all; start_all()"
    options, environment = (["--tenant-id", "a.test"], {}) if way == "option" else ([], {"TENANT_ID": "a.test"})
    found = json.loads(served.run("shell", "-c", code, *options, **environment).out.splitlines()[-1])
    assert set(found) == {"command", "thread", "executor", "fork", "fork pool", "spawn", "spawn pool", "forkserver"}
    assert {tuple(seen) for seen in found.values()} == {tuple(found["command"])}
    assert found["command"][0] == "a.test"


def test_what_a_command_pushes_and_never_pops_binds_nobody_afterwards(tenants):
    class Pushes(BaseCommand):
        def handle(self, *args, **options):
            tls_tenant_manager.push_tenant_context(tenant_context_manager.get_by_id("b"))

    tenants.put("a")
    tenants.put("b")
    tenants.arrived("b")
    call_command(Pushes())
    assert tls_tenant_manager.current_tenant_context is None
    with tenant_context_bind("a"):
        call_command(Pushes())
        assert tls_tenant_manager.current_tenant_context.id == "a"
