"""``tenant create``: record, databases, migrations and first data by one command, which goes on where it was killed."""

import base64
import hashlib
import hmac
import io
import json
import os
import threading
import uuid

import pytest
from django.core.management import CommandError, call_command
from django.core.management.commands import migrate
from django.db import connection, connections
from psycopg import sql

from tenant_router import lifecycle
from tenant_router.config_store import codec
from tenant_router.config_store.base import ACTIVE, DELETED, PROVISIONING, packed_state
from tenant_router.context_decorators import tenant_context_bind
from tenant_router.exceptions import Locked, ProvisioningError
from tenant_router.fleet.ledger import Ledger
from tenant_router.fleet.locks import Locks
from tenant_router.lifecycle import Writer, begun, seeding
from tenant_router.lifecycle.reference import reference_context
from tenant_router.lifecycle.stamping import Stamping
from tenant_router.orm_backends.django_orm import database_names, identity_stamp, postgresql_server, sqlite_files
from tenant_router.orm_backends.django_orm.connections import template_of
from tests.app.models import Note

ID = "acme.example.com"


def create(*arguments, tenant_id=ID):
    out = io.StringIO()
    call_command("tenant", "create", tenant_id, *arguments, stdout=out)
    return out.getvalue()


class OnPostgres:
    """A project whose new tenants have databases on a real PostgreSQL; all its names begin with ``prefix``."""

    def __init__(self, project, server, **options):
        self.server, self.prefix = server, f"p{uuid.uuid4().hex[:8]}"
        template = {"ENGINE": "django.db.backends.postgresql", "NAME": "template-must-not-be-opened"}
        template |= {"HOST": server.host, "USER": server.user, **options.pop("template", {})}
        names = {"NAME_PATTERN": self.prefix + "_{alias}_{tenant}", "REFERENCE_DATABASE": f"{self.prefix}_reference"}
        aliases = options.pop("aliases", ("default",))
        self.tenants = project({alias: dict(template) for alias in aliases}, **names | options)
        self.store = self.tenants.runtime.store

    def query(self, statement, *values, database="postgres"):
        with self.server.connect(database) as plain:
            return plain.execute(statement, values or None).fetchall()

    def made(self):
        """The databases and roles there are of this project but for the reference."""
        like = self.prefix + "%"
        databases = self.query("SELECT datname FROM pg_database WHERE datname LIKE %s", like)
        roles = self.query("SELECT rolname FROM pg_roles WHERE rolname LIKE %s", like)
        unfinished = self.query("SELECT datname FROM pg_database WHERE datname LIKE 'tenant_router%%'")
        return sorted(name for (name,) in databases + roles + unfinished if not name.endswith("_reference"))

    def end(self):
        with self.server.connect("postgres") as plain:
            found = "SELECT datname FROM pg_database WHERE datname LIKE %s OR datname LIKE 'tenant_router%%'"
            for (name,) in plain.execute(found, [self.prefix + "%"]).fetchall():
                plain.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
            for (name,) in plain.execute("SELECT rolname FROM pg_roles WHERE rolname LIKE %s", [self.prefix + "%"]):
                plain.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


class OnSqlite:
    """A project whose new tenants have files in ``folder``."""

    def __init__(self, project, folder, aliases=("default",), **options):
        self.folder = folder
        template = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(folder / "template.db")}
        self.tenants = project({alias: dict(template) for alias in aliases}, **options)
        self.store = self.tenants.runtime.store

    def made(self):
        return sorted(one.name for one in self.folder.iterdir() if "reference" not in one.name)


@pytest.fixture
def on_server(project, postgres_server):
    """A function that makes a project on PostgreSQL with these options of its ORM."""
    made = []

    def make(**options):
        made.append(OnPostgres(project, postgres_server, **options))
        return made[-1]

    yield make
    connections.close_all()
    for one in reversed(made):
        one.tenants.runtime.uninstall()
        one.end()


@pytest.fixture(params=["postgresql", "sqlite"])
def place(request, project, tmp_path):
    """A project on either."""
    if request.param == "postgresql":
        return request.getfixturevalue("on_server")()
    (tmp_path / "databases").mkdir()
    return OnSqlite(project, tmp_path / "databases")


def state(place, tenant_id=ID):
    entry = place.store.index().get(tenant_id)
    return entry and packed_state(entry)


def notes(place):
    return place.store.scan_notes(begun.BOOK, "", 10)[1]


def stored(place, tenant_id=ID):
    return Writer(place.tenants.runtime).record(tenant_id)


def settings_of(place, tenant_id=ID):
    place.tenants.arrived(tenant_id, stored(place, tenant_id).rev)
    with tenant_context_bind(tenant_id):
        return dict(connection.settings_dict)


@pytest.fixture
def fixture_file(tmp_path):
    """A fixture whose one note has no key: it would be there twice if it was loaded twice."""
    file = tmp_path / "first.json"
    file.write_text(json.dumps([{"model": "app.note", "fields": {"text": "first"}}]))
    return str(file)


def texts(tenant_id=ID):
    with tenant_context_bind(tenant_id):
        return [*Note.objects.values_list("text", flat=True)]


def test_one_command_creates_a_tenant_that_is_served(place, fixture_file):
    assert create("--seed", fixture_file) == f"{ID} is active at revision {stored(place).rev}\n"
    assert (state(place), notes(place)) == (ACTIVE, {})
    place.tenants.arrived(ID, stored(place).rev)
    assert texts() == ["first"]
    incarnation = codec.incarnation_of(stored(place).body)
    with tenant_context_bind(ID), connection.cursor() as cursor:
        cursor.execute("SELECT tenant, incarnation FROM tenant_router_identity")
        assert cursor.fetchall() == [(ID, incarnation)]
        assert seeding._MARK not in connection.introspection.table_names(cursor)
    assert len(place.made()) == 1


# --- whoever is killed ---


class Killed(BaseException):
    """What stands for ``kill -9``: from then on nothing of the run has an effect any more."""


class Killer:
    """Kills a run before its n-th effect, of those that other processes can see."""

    def __init__(self, monkeypatch, store):
        self._left = None
        effects = [
            (begun.Notes, "write"),
            (type(store), "commit"),
            (postgresql_server, "_run"),
            (sqlite_files, "_remove"),
            (sqlite_files.os, "link"),
            (identity_stamp, "write_first"),
            (Stamping, "claim"),
            (Ledger, "write"),
            (seeding, "seed"),
            (seeding, "forget"),
        ]
        for owner, name in effects:
            monkeypatch.setattr(owner, name, self._deadly(getattr(owner, name)))

    def _deadly(self, do):
        def done(*args, **kwargs):
            if self._left is not None:
                self._left -= 1
                if self._left < 0:
                    raise Killed
            return do(*args, **kwargs)

        return done

    def run(self, effects, do):
        """Run ``do`` and kill it before the effect of that number; whether it was killed, and not done before."""
        self._left = effects
        try:
            do()
        except Killed:
            return True
        finally:
            self._left = None
        return False


@pytest.fixture
def copied(place, fixture_file):
    """The arguments that create a tenant in an instant, with first data."""
    call_command("tenant", "template", "refresh", stdout=io.StringIO())
    return ["--from-template", "--seed", fixture_file]


def ids():
    number = 0
    while True:
        number += 1
        yield f"t{number}.test"


def test_a_run_that_is_killed_anywhere_is_completed_by_the_same_command(place, copied, monkeypatch):
    killer, expected, begun_ids = Killer(monkeypatch, place.store), [], ids()
    for effects in range(100):
        tenant_id = next(begun_ids)
        killed = killer.run(effects, lambda: create(*copied, tenant_id=tenant_id))  # noqa: B023
        if killed:
            create(*copied, tenant_id=tenant_id)
        place.tenants.arrived(tenant_id, stored(place, tenant_id).rev)
        expected.append(tenant_id)
        assert (state(place, tenant_id), notes(place), texts(tenant_id)) == (ACTIVE, {}, ["first"]), effects
        assert len(place.made()) == len(expected), effects
        if not killed:
            break
        connections.close_all()
    assert 10 < effects < 99


def test_a_run_that_is_killed_anywhere_is_undone(place, copied, monkeypatch):
    killer, tenant_id = Killer(monkeypatch, place.store), "t.test"
    for effects in range(100):
        killed = killer.run(effects, lambda: create(*copied, tenant_id=tenant_id))
        if not killed or state(place, tenant_id) == ACTIVE:
            break
        if notes(place):
            # and so is an undoing that is killed
            killer.run(effects % 5, lambda: create("--undo", "--yes", tenant_id=tenant_id))
        if notes(place):
            create("--undo", "--yes", tenant_id=tenant_id)
        assert (state(place, tenant_id) in (None, DELETED), notes(place), place.made()) == (True, {}, []), effects
    assert 10 < effects < 99


def test_what_is_interrupted_says_how_it_goes_on(place, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(lifecycle.work.Migrator, "migrate", interrupt)
        with pytest.raises(CommandError, match="run the same command again to go on, or with --undo") as found:
            create()
    assert found.value.returncode == 130
    assert state(place) == PROVISIONING
    with pytest.raises(CommandError, match="give --yes, since there is no terminal to ask on"):
        create("--undo")
    assert state(place) == PROVISIONING
    assert len(place.made()) == 1
    assert "removed" in create("--undo", "--yes")
    assert (state(place), place.made()) == (DELETED, [])
    with pytest.raises(ProvisioningError, match="is not being created"):
        create("--undo", "--yes")


def test_a_migration_that_fails_is_named_and_the_rerun_finishes(place, monkeypatch):
    def fail(self, *args, **options):
        raise ValueError("no price")

    with monkeypatch.context() as patch:
        patch.setattr(migrate.Command, "handle", fail)
        with pytest.raises(ProvisioningError, match=r"stopped at the step 'migrate': .*ValueError: no price.*--undo"):
            create()
    assert (state(place), json.loads(notes(place)[ID])["step"]) == (PROVISIONING, "migrate")
    create()
    assert state(place) == ACTIVE


def test_data_that_cannot_be_loaded_leave_nothing_behind(place, copied, tmp_path, fixture_file):
    bad = tmp_path / "bad.json"
    fields = [{"text": "one"}, {"no_such_field": 1}]
    bad.write_text(json.dumps([{"model": "app.note", "fields": each} for each in fields]))
    with pytest.raises(ProvisioningError, match=r"stopped at the step 'seed': .*no_such_field"):
        create("--from-template", "--seed", str(bad))
    create("--seed", fixture_file)
    place.tenants.arrived(ID, stored(place).rev)
    assert texts() == ["first"]


# --- refused ---


def test_who_exists_already_is_refused(place):
    place.tenants.put(ID, {"orm_config": {"django_orm": {"default": {"NAME": "x"}}}})
    with pytest.raises(ProvisioningError, match="exists already and is active: nothing was made"):
        create()
    with pytest.raises(ProvisioningError, match="is not being created"):
        create("--undo", "--yes")
    assert place.made() == []


def test_a_database_that_is_somebody_elses_is_neither_taken_nor_removed(place):
    create(tenant_id="other.test")
    name = settings_of(place, "other.test")["NAME"]
    Writer(place.tenants.runtime).set_state(["other.test"], DELETED)
    record = json.dumps({"orm_config": {"django_orm": {"default": {"NAME": name}}}})
    before = place.made()
    with pytest.raises(ProvisioningError, match="exists already, and was not made by this command"):
        create("--record", written(place, record))
    assert (place.made(), state(place), notes(place)) == (before, None, {})


def written(place, text):
    file = place.tenants.directory / f"{uuid.uuid4().hex}.json"
    file.write_text(text)
    return str(file)


def test_a_database_that_others_use_meanwhile_is_not_removed(place, monkeypatch):
    def fail(*args):
        raise OSError("stop")

    with monkeypatch.context() as patch:
        patch.setattr(lifecycle.work.Migrator, "migrate", fail)
        with pytest.raises(ProvisioningError, match="'migrate': OSError: stop"):
            create()
    record = Writer(place.tenants.runtime).decoded(ID, stored(place))
    place.tenants.delete(ID)
    with pytest.raises(ProvisioningError, match="was deleted at the step 'migrate': finish that with --undo"):
        create()
    place.tenants.put("heir.test", record)
    with pytest.raises(ProvisioningError, match="a record leads to a database that was made"):
        create("--undo", "--yes")
    assert len(place.made()) == 1
    place.tenants.delete("heir.test")
    create("--undo", "--yes")
    assert place.made() == []


def test_a_tenant_that_was_activated_is_never_undone(place, copied, monkeypatch):
    killer = Killer(monkeypatch, place.store)
    for effects in range(100):
        killer.run(effects, lambda: create(*copied, tenant_id=f"t{effects}.test"))  # noqa: B023
        if state(place, f"t{effects}.test") == ACTIVE:
            break
    assert f"t{effects}.test" in notes(place)  # killed between its activation and the end
    made = place.made()
    with pytest.raises(ProvisioningError, match="is served: nothing was removed"):
        create("--undo", "--yes", tenant_id=f"t{effects}.test")
    assert place.made() == made


def test_two_at_once_are_one(place, copied, monkeypatch):
    monkeypatch.setattr(Locks, "patience", 0.0)
    inside, go_on, said = threading.Event(), threading.Event(), []
    claim = lifecycle.provisioning.Stamping.claim

    def slow(self, op):
        inside.set()
        assert go_on.wait(60)
        claim(self, op)

    monkeypatch.setattr(lifecycle.provisioning.Stamping, "claim", slow)
    first = threading.Thread(target=lambda: said.append(create(*copied)))
    first.start()
    assert inside.wait(60)
    with pytest.raises(Locked, match="another run works on"):
        create(*copied)
    go_on.set()
    first.join(60)
    assert said == [f"{ID} is active at revision {stored(place).rev}\n"]
    assert len(place.made()) == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[", "--record"),
        ("[]", "is no JSON object"),
        ('{"orm_config": 1}', "orm_config"),
        ('{"orm_config": {"django_orm": {"default": 1}}}', "default"),
        ('{"orm_config": {"django_orm": {"nobody": {"NAME": "x"}}}}', "nobody"),
        ('{"orm_config": {"django_orm": {"default": {"NAMME": "x"}}}}', "NAMME"),
        ('{"orm_config": {"no_orm": {}}}', "no_orm"),
    ],
)
def test_a_record_that_is_wrong_makes_nothing(place, text, said):
    with pytest.raises((CommandError, ProvisioningError), match=said):
        create("--record", written(place, text))
    assert (place.made(), state(place), notes(place)) == ([], None, {})


def test_a_rerun_with_another_record_is_refused(place, monkeypatch):
    def fail(*args):
        raise OSError("stop")

    with monkeypatch.context() as patch:
        patch.setattr(lifecycle.work.Migrator, "migrate", fail)
        with pytest.raises(ProvisioningError):
            create("--record", written(place, '{"labels": ["pro"]}'))
    with pytest.raises(ProvisioningError, match="being created with another record"):
        create("--record", written(place, '{"labels": ["free"]}'))
    create("--record", written(place, '{"labels": ["pro"]}'))
    assert Writer(place.tenants.runtime).decoded(ID, stored(place))["labels"] == ["pro"]


def test_ids_that_are_none_and_stores_without_notes_are_refused(place, monkeypatch):
    with pytest.raises(Exception, match="is no tenant id"):
        create(tenant_id="No Id")
    monkeypatch.setattr(type(place.store), "keeps_notes", False)
    with pytest.raises(ProvisioningError, match="keeps no notes"):
        create()


def test_a_copy_needs_its_reference_and_is_not_migrated_again(place, monkeypatch):
    with pytest.raises(
        ProvisioningError, match=r"there is no reference database .*'manage.py tenant template refresh'"
    ):
        create("--from-template")
    call_command("tenant", "template", "refresh", stdout=io.StringIO())
    runs = []
    monkeypatch.setattr(lifecycle.work.Migrator, "_run", lambda *args: runs.append(args))
    create("--from-template")
    settings_of(place)
    assert (runs, texts()) == ([], [])


def test_a_copy_of_an_old_reference_is_migrated(place):
    call_command("tenant", "template", "refresh", stdout=io.StringIO())
    Ledger(place.store).write("@reference_default", "that of an older release")
    create("--from-template", tenant_id="a.test")
    assert Ledger(place.store).read(["a.test_default"])
    settings_of(place, "a.test")
    assert texts("a.test") == []


def test_the_reference_is_the_template_to_routers_and_migrations(place):
    router = place.tenants.runtime
    manager = router.orms["django_orm"]
    with tenant_context_bind(reference_context(router, manager, manager.provisioner)):
        assert template_of("@reference_default") == "default"
        assert connection.settings_dict["NAME"].endswith(("_reference", "_reference.db"))


@pytest.mark.parametrize("server", ["postgresql", "sqlite"])
def test_two_aliases_have_two_databases_or_one_as_the_record_says(request, server, project, tmp_path):
    if server == "sqlite":
        place = OnSqlite(project, tmp_path, aliases=("default", "second"))
    else:
        place = request.getfixturevalue("on_server")(aliases=("default", "second"))
    create(tenant_id="two.test")
    place.tenants.arrived("two.test", stored(place, "two.test").rev)
    with tenant_context_bind("two.test"):
        names = [connections[alias].settings_dict["NAME"] for alias in ("default", "second")]
    assert len({*names}) == 2
    one = {"NAME": names[0].replace("two.test", "one.test").replace("two_test", "one_test")}
    create("--record", written(place, json.dumps({"orm_config": {"django_orm": {"default": one, "second": one}}})))
    settings_of(place)
    for alias in ("default", "second"):
        with tenant_context_bind(ID):
            assert Note.objects.using(alias).count() == 0


# --- PostgreSQL ---


def limited(on_server, *rights, **options):
    """A project whose databases are made by a role with no rights but these."""
    first = on_server()
    maker, application = f"{first.prefix}_maker", f"{first.prefix}_app"
    with first.server.connect("postgres") as plain:
        plain.execute(sql.SQL(f"CREATE ROLE {{}} LOGIN {' '.join(rights)}").format(sql.Identifier(maker)))
        plain.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(application)))
        grant = sql.SQL("GRANT {} TO {}").format(sql.Identifier(application), sql.Identifier(maker))
        plain.execute(grant)
    return on_server(MAINTENANCE={"USER": maker}, template={"USER": application}, **options)


@pytest.mark.parametrize("from_template", [False, True])
def test_a_role_of_its_own_owns_what_is_in_the_database_and_nobody_else_enters(on_server, from_template):
    place = limited(on_server, "CREATEDB", "CREATEROLE", CREATE_ROLES=True)
    arguments = ["--from-template"] if from_template else []
    if from_template:
        call_command("tenant", "template", "refresh", stdout=io.StringIO())
    create(*arguments)
    settings = settings_of(place)
    with tenant_context_bind(ID):
        Note.objects.create(text="mine")
        with connection.cursor() as cursor:
            cursor.execute("CREATE TABLE own (x int)")
    name = settings["USER"]
    assert name == settings["NAME"]
    owners = place.query(
        "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'", database=settings["NAME"]
    )
    assert owners == [(name,)]
    assert place.query("SELECT rolsuper, rolcreatedb, rolcreaterole FROM pg_roles WHERE rolname = %s", name) == [
        (False, False, False)
    ]
    allowed = "SELECT has_database_privilege('public', %s, 'CONNECT')"
    assert place.query(allowed, settings["NAME"]) == [(False,)]
    assert place.query("SELECT rolpassword FROM pg_authid WHERE rolname = %s", name)[0][0].startswith("SCRAM-SHA-256$")
    out = io.StringIO()
    call_command("tenant", "show", ID, stdout=out)
    assert str.__str__(settings["PASSWORD"]) not in out.getvalue()


def test_the_password_that_is_generated_is_the_roles_and_is_told_to_no_server(on_server, monkeypatch):
    place, run, told = on_server(CREATE_ROLES=True), postgresql_server._run, []

    def overheard(server, statement, *parts):
        told.append(sql.SQL(statement).format(*parts).as_string(None))
        run(server, statement, *parts)

    monkeypatch.setattr(postgresql_server, "_run", overheard)
    create()
    settings = settings_of(place)
    assert any(statement.startswith("CREATE ROLE") for statement in told)
    assert str.__str__(settings["PASSWORD"]) not in "".join(told)
    verifier = place.query("SELECT rolpassword FROM pg_authid WHERE rolname = %s", settings["USER"])[0][0]
    assert verifier == with_salt(str.__str__(settings["PASSWORD"]), verifier)


def with_salt(password, verifier):
    """The verifier of ``password`` by RFC 5802, with the salt of another one."""
    iterations, salt = verifier.split("$")[1].split(":")
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(salt), int(iterations))
    client = hmac.new(salted, b"Client Key", hashlib.sha256).digest()
    server = hmac.new(salted, b"Server Key", hashlib.sha256).digest()
    stored_key, server_key = (base64.b64encode(each).decode() for each in (hashlib.sha256(client).digest(), server))
    return f"SCRAM-SHA-256${iterations}:{salt}${stored_key}:{server_key}"


@pytest.mark.parametrize(("right", "options"), [("CREATEDB", {}), ("CREATEROLE", {"CREATE_ROLES": True})])
def test_a_role_that_may_not_says_so_in_one_line(on_server, right, options):
    place = limited(on_server, "CREATEDB" if right == "CREATEROLE" else "", **options)
    with pytest.raises(ProvisioningError, match=rf"has no {right}: grant it, or .*\(nothing was made\)"):
        create()
    assert (state(place), notes(place)) == (None, {})


def test_a_reference_that_somebody_is_connected_to_is_one_line(on_server):
    place = on_server()
    call_command("tenant", "template", "refresh", stdout=io.StringIO())
    name = f"{place.prefix}_reference"
    with place.server.connect("postgres") as plain:
        plain.execute(sql.SQL("ALTER DATABASE {} WITH ALLOW_CONNECTIONS true").format(sql.Identifier(name)))
    with (
        place.server.connect(name),
        pytest.raises(ProvisioningError, match="somebody is connected to the reference database"),
    ):
        create("--from-template")
    create("--from-template")
    assert state(place) == ACTIVE


def test_a_name_that_the_server_would_cut_is_refused(on_server):
    place = on_server(CREATE_ROLES=True)
    config = {"USER": "r" * 64, "PASSWORD": "x"}
    with pytest.raises(ProvisioningError, match="names end at 63 bytes"):
        create("--record", written(place, json.dumps({"orm_config": {"django_orm": {"default": config}}})))
    assert place.made() == []


@pytest.mark.parametrize("host", ["127.0.0.1", "other.example.com"])
def test_a_record_of_another_server_is_refused_before_anything_is_sent_there(on_server, host):
    place = on_server(MAINTENANCE={"PASSWORD": "canary"})
    record = {"orm_config": {"django_orm": {"default": {"HOST": host}}}}
    with pytest.raises(ProvisioningError, match="on another server than the template's"):
        create("--record", written(place, json.dumps(record)))
    assert "canary" not in str(place.tenants.runtime.orms["django_orm"].options)


def test_a_server_that_is_away_is_one_line(on_server, tmp_path):
    place = on_server(MAINTENANCE={"HOST": str(tmp_path)})
    with pytest.raises(ProvisioningError, match=r"cannot be created: OperationalError: .*\(nothing was made\)"):
        create()
    assert notes(place) == {}


# --- names ---


def test_names_fit_and_differ():
    wanted = ["a.b", "a_b", "a-b", "x" * 63, "x" * 64, "x" * 65, "x" * 253]
    names = [database_names.postgresql_name(each) for each in wanted]
    assert len({*names}) == len(wanted)
    assert names[1] == "a_b"
    assert max(map(len, names)) == 63
    files = [os.path.basename(database_names.sqlite_name(f"{each}.db", "/data/template.db")) for each in wanted]
    assert len({*files}) == len(wanted)
    assert max(map(len, files)) <= 255 - 48


@pytest.mark.parametrize("pattern", ["x", "{tenant", "{tenant}_{nobody}", 5, "{}"])
def test_a_pattern_that_gives_no_names_is_refused(on_server, pattern):
    on_server(NAME_PATTERN=pattern)
    with pytest.raises(Exception, match="NAME_PATTERN"):
        create()
