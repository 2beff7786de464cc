"""What every ORM manager promises. To add one: a subclass of ``Subject``, and its line in ``SUBJECTS``."""

import contextvars
import copy
import importlib.util
import socket
import threading
import uuid

import pytest

from tenant_router import context as _context
from tenant_router.context_decorators import tenant_context_bind
from tenant_router.exceptions import RecordInvalid, TenantContextMissing, TenantDeleted, TenantSuspended
from tenant_router.tenant_context import DeniedContext
from tests.integration.test_fork import in_fork
from tests.services import require
from tests.tenants import eventually

CANARY = "canary-Pa55word"

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


class Subject:
    """One manager: the settings and records that the promises are tried with.

    ``templates``: at least ``default`` and ``other``. ``good(name)``: what a record says of one
    alias, so that different names are different databases. ``secret``: what, added to a good
    one, gives it the secret ``CANARY``. ``bad``: a config of one alias, and the keys that must
    be found wrong in it. ``project(request)``: a project of tenants on real servers, which has
    ``runtime``, ``tenants`` and ``put(tenant_id, name)``. ``reach()``: talk to the bound
    tenant's database by the ORM's own means and return something that tells databases apart.
    """

    orm_id: str
    library: str
    templates: dict
    secret: dict
    bad: dict
    bad_keys: set

    def make(self, **options):
        require(importlib.util.find_spec(self.library), f"{self.library} is not installed")
        return self.manager_class()(self.orm_id, copy.deepcopy(self.templates), options)

    def manager_class(self):
        from django.utils.module_loading import import_string

        from tenant_router.orm_backends.loader import SHIPPED

        return import_string(SHIPPED[self.orm_id])

    def good(self, name):
        return {"NAME": name}

    def config(self, *names, **more):
        return {alias: {**self.good(name), **more} for alias, name in zip(self.templates, names, strict=True)}


class DjangoProject:
    orm_id = "django_orm"

    def __init__(self, tenants):
        self.tenants, self.runtime = tenants, tenants.runtime

    def put(self, tenant_id, name):
        self.tenants.arrived(tenant_id, self.tenants.put(tenant_id, self.tenants.record(name)))


class DjangoOrm(Subject):
    orm_id, library = "django_orm", "django"
    _postgres = {"ENGINE": "django.db.backends.postgresql", "NAME": "main", "HOST": "db.test"}
    templates = {"default": _postgres, "other": _postgres}
    secret = {"PASSWORD": CANARY}
    bad = {"NAME": 5, "PORT": f"x{CANARY}", "NO_SUCH": CANARY}
    bad_keys = {"NAME", "PORT", "NO_SUCH"}

    def project(self, request):
        return DjangoProject(request.getfixturevalue("tenants"))

    def reach(self):
        from django.db import connection

        connection.cursor().close()
        return str(connection.settings_dict["NAME"])


class Mongo(Subject):
    _mongo = {"NAME": "main", "HOST": "db.test"}
    templates = {"default": _mongo, "other": _mongo}
    secret = {"USER": "somebody", "PASS": CANARY}
    bad = {"NAME": 5, "PORT": f"x{CANARY}", "NO_SUCH": CANARY, "OPTIONS": {"noSuch": CANARY}}
    bad_keys = {"NAME", "PORT", "NO_SUCH", "OPTIONS.noSuch"}

    def project(self, request):
        return request.getfixturevalue("mongo_project")(self.orm_id)

    def reach(self):
        database = self.database()
        database.command("ping")
        return database.name


class Pymodm(Mongo):
    orm_id, library = "pymodm_orm", "pymodm"

    def database(self):
        from pymodm.connection import _get_db

        return _get_db()


class Mongoengine(Mongo):
    orm_id, library = "mongoengine_orm", "mongoengine"

    def database(self):
        from mongoengine import get_db

        return get_db()


class Secret(dict):
    """Options that hold a secret, which can be replaced as it can in text."""

    def replace(self, old, new):
        return Secret({key: value.replace(old, new) for key, value in self.items()})


class ElasticsearchProject:
    def __init__(self, tenants):
        self.tenants, self.runtime = tenants, tenants.runtime

    def put(self, tenant_id, name):
        config = {"INDEX_PREFIX": f"{self.tenants.id(name)}-"}
        self.tenants.put(tenant_id, self.tenants.record(name, es=config))


class Elasticsearch(Subject):
    orm_id, library = "es_orm", "elasticsearch"
    templates = {"default": {}, "other": {}}
    secret = {"OPTIONS": Secret(api_key=CANARY)}
    bad = {"HOSTS": [CANARY], "INDEX_PREFIX": CANARY, "NO_SUCH": CANARY, "OPTIONS": {"noSuch": CANARY}}
    bad_keys = {"HOSTS[0]", "INDEX_PREFIX", "NO_SUCH", "OPTIONS.noSuch"}

    def good(self, name):
        return {"HOSTS": ["http://es.test:9200"], "INDEX_PREFIX": f"{name}-"}

    def project(self, request):
        return ElasticsearchProject(request.getfixturevalue("es_project")())

    def reach(self):
        from tenant_router.orm_backends.es_orm import get_client

        client = get_client()
        client.options(ignore_status=409).create(index="where", id="1", document={"says": uuid.uuid4().hex})
        return client.get(index="where", id="1")["_source"]["says"]


SUBJECTS = [DjangoOrm(), Pymodm(), Mongoengine(), Elasticsearch()]


@pytest.fixture(params=SUBJECTS, ids=lambda subject: subject.orm_id)
def subject(request):
    return request.param


@pytest.fixture
def project(subject, request):
    """Tenants ``a.test`` and ``b.test``, with a database each."""
    made = subject.project(request)
    made.put("a.test", "a")
    made.put("b.test", "b")
    return made


@pytest.fixture
def no_io(monkeypatch):
    """The test fails if it opens a socket or starts a thread; what other threads of the process do is their matter."""
    own = threading.current_thread()

    def refusing(function):
        def refuse(*args, **kwargs):
            assert threading.current_thread() is not own, "this was to do no I/O"
            return function(*args, **kwargs)

        return refuse

    for owner, name in ((socket.socket, "connect"), (socket, "getaddrinfo"), (threading.Thread, "start")):
        monkeypatch.setattr(owner, name, refusing(getattr(owner, name)))


def reached(subject, tenant_id):
    with tenant_context_bind(tenant_id):
        return subject.reach()


# --- prepare ---


def test_prepare_does_no_io_and_changes_nothing(subject, no_io):
    manager, config = subject.make(), subject.config("one", "two", **subject.secret)
    before, templates = copy.deepcopy(config), copy.deepcopy(manager.templates)
    parts = manager.prepare("a.test", config, None)
    manager.prepare("a.test", config, parts)
    assert (config, manager.templates) == (before, templates)


def test_prepare_is_repeatable(subject):
    manager, config = subject.make(), subject.config("one", "two")
    assert repr(manager.prepare("a.test", config, None)) == repr(subject.make().prepare("a.test", config, None))


def test_every_template_alias_is_prepared(subject):
    parts = subject.make().prepare("a.test", subject.config("one", "two"), None)
    assert parts["default"] is not parts["other"]


def test_what_is_unchanged_is_taken_over(subject):
    manager = subject.make()
    before = manager.prepare("a.test", subject.config("one", "two"), None)
    after = manager.prepare("a.test", subject.config("one", "three"), before)
    assert after["default"] is before["default"]
    assert after["other"] is not before["other"]


def test_a_new_secret_is_a_change(subject):
    manager = subject.make()
    before = manager.prepare("a.test", subject.config("one", "two", **subject.secret), None)
    changed = {key: value.replace(CANARY, "another") for key, value in subject.secret.items()}
    after = manager.prepare("a.test", subject.config("one", "two", **changed), before)
    assert after["default"] is not before["default"]


def test_every_fault_of_every_alias_is_listed_by_its_path(subject):
    with pytest.raises(RecordInvalid) as found:
        subject.make().prepare("a.test", {"default": subject.bad, "other": subject.bad}, None)
    expected = {
        f"orm_config.{subject.orm_id}.{alias}.{key}" for alias in ("default", "other") for key in subject.bad_keys
    }
    assert {path for path, _ in found.value.problems} >= expected
    assert CANARY not in str(found.value)


def test_an_empty_config_is_refused(subject):
    with pytest.raises(RecordInvalid, match=rf"orm_config\.{subject.orm_id}\.default\."):
        subject.make().prepare("a.test", {}, None)


def test_no_repr_shows_a_secret(subject):
    parts = subject.make().prepare("a.test", subject.config("one", "two", **subject.secret), None)
    assert CANARY not in repr(parts) + "".join(map(repr, parts.values())) + "".join(map(str, parts.values()))


def test_locations_are_those_of_the_databases_and_bad_configs_raise_nothing(subject, no_io):
    manager = subject.make()
    one = dict(manager.locations("a.test", subject.config("one", "two")))
    assert one == dict(manager.locations("a.test", subject.config("one", "two", **subject.secret)))
    assert one["default"] != one["other"]
    assert one["default"] != dict(manager.locations("a.test", subject.config("three", "two")))["default"]
    assert CANARY not in str(one)
    list(manager.locations("a.test", {}))
    list(manager.locations("a.test", {"default": subject.bad, "other": subject.bad}))


# --- in use ---


def test_the_bound_tenants_database_is_reached(subject, project):
    assert reached(subject, "a.test") != reached(subject, "b.test")


def test_the_bound_tenants_database_gives_a_sign_of_life(subject, project):
    manager = project.runtime.orms[subject.orm_id]
    with tenant_context_bind("a.test"):
        manager.check_health("default")
    with pytest.raises(TenantContextMissing):
        manager.check_health("default")


def test_without_a_tenant_nothing_is_reached(subject, project):
    with pytest.raises(TenantContextMissing, match="'default'"):
        subject.reach()


def test_a_tenant_that_could_not_be_bound_says_why(subject, project):
    before = _context.enter(DeniedContext("a.test", TenantSuspended("tenant 'a.test' is suspended", "a.test")))
    try:
        with pytest.raises(TenantSuspended):
            subject.reach()
    finally:
        _context.leave(before)


def test_a_running_unit_of_work_ends_where_it_began(subject, project):
    with tenant_context_bind("a.test"):
        before = subject.reach()
        project.put("a.test", "moved")
        assert subject.reach() == before
        project.tenants.delete("a.test")
        eventually(lambda: project.runtime.registry.state_of("a.test") == "X")
        assert subject.reach() == before


def test_what_outlives_its_unit_of_work_follows_a_change_and_a_deletion(subject, project):
    with tenant_context_bind("a.test"):
        before = subject.reach()
        kept = contextvars.copy_context()
    project.put("a.test", "moved")
    assert kept.run(subject.reach) != before
    with tenant_context_bind("a.test"):
        kept = contextvars.copy_context()
    project.tenants.delete("a.test")
    eventually(lambda: project.runtime.registry.state_of("a.test") == "X")
    with pytest.raises(TenantDeleted):
        kept.run(subject.reach)


def test_the_next_unit_of_work_follows_a_change(subject, project):
    before = reached(subject, "a.test")
    project.put("a.test", "moved")
    assert reached(subject, "a.test") != before


def test_a_forked_child_reaches_what_its_parent_reaches(subject, project):
    before = reached(subject, "a.test")
    assert in_fork(reached, subject, "a.test") == before
    assert in_fork(reached, subject, "b.test") == reached(subject, "b.test")
    assert reached(subject, "a.test") == before


def test_installing_and_uninstalling_twice_is_doing_it_once(subject, project):
    manager = project.runtime.orms[subject.orm_id]
    manager.install()
    assert reached(subject, "a.test") != reached(subject, "b.test")
    manager.uninstall()
    manager.uninstall()
    manager.install()
    assert reached(subject, "a.test") != reached(subject, "b.test")
