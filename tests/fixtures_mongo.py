"""Fixtures: a project that keeps documents in MongoDB, by PyModm or by MongoEngine."""

import importlib.util
import os
import uuid
from urllib.parse import urlsplit

import pytest
from django.conf import settings

from tenant_router.context_decorators import tenant_context_bind
from tests.mongo_server import MongoServer
from tests.services import require
from tests.tenants import Tenants

MODULES = {"pymodm_orm": "pymodm", "mongoengine_orm": "mongoengine"}
# PyModm counts by a method that PyMongo deprecates; the first use of a client before a fork is what is tested.
QUIET = ("ignore:count is deprecated:DeprecationWarning", "ignore:No uuidRepresentation:DeprecationWarning")


def require_orm(orm_id):
    """Skip the test where the library is not installed."""
    require(importlib.util.find_spec(MODULES[orm_id]), f"{MODULES[orm_id]} is not installed")


@pytest.fixture(scope="session")
def mongo_url():
    """A MongoDB server that all tests share: they keep apart by database names."""
    require("MONGO_URL" in os.environ, "MONGO_URL names no MongoDB server")
    return os.environ["MONGO_URL"]


@pytest.fixture(scope="session")
def other_mongo():
    """A second server."""
    server = MongoServer()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def frail_mongo():
    """A server that the test may stop and freeze."""
    server = MongoServer()
    server.start()
    yield server
    server.stop()


class Models:
    """What a test does with documents, in the words of either library."""

    def __init__(self, orm_id):
        require_orm(orm_id)
        name = f"tests.{MODULES[orm_id]}_models"
        self.orm_id, self.module = orm_id, importlib.import_module(name)

    def add(self, text):
        try:
            return self.module.Note(text=text).save()
        except Exception as error:
            # The protocol server of the tests trips over first writes to a database that meet; MongoDB does not.
            if "Unknown error: null" not in str(error):
                raise
            return self.module.Note(text=text).save()

    def notes(self):
        manager = self.module.Note.objects
        return manager.all() if self.orm_id == "pymodm_orm" else manager

    def texts(self):
        return sorted(note.text for note in self.notes())


class MongoProject:
    """A runtime whose project uses ``orm_id``; its databases' names begin with ``prefix``."""

    def __init__(self, orm_id, tenants, url, prefix):
        self.models, self.orm_id = Models(orm_id), orm_id
        self.tenants, self.runtime, self.url, self.prefix = tenants, tenants.runtime, url, prefix

    @property
    def manager(self):
        return self.runtime.orms[self.orm_id]

    def name(self, database):
        return f"{self.prefix}_{database}"

    def record(self, database, **config):
        """A record with a SQLite database and a MongoDB database of that name."""
        record = self.tenants.record(self.name(database))
        record["orm_config"][self.orm_id] = {"default": {"NAME": self.name(database), **config}}
        return record

    def put(self, tenant_id, database, **config):
        revision = self.tenants.put(tenant_id, self.record(database, **config))
        self.tenants.arrived(tenant_id, revision)

    def two(self):
        """Two tenants with a document each, which is its tenant's id."""
        for tenant_id in ("a.test", "b.test"):
            self.put(tenant_id, tenant_id[0])
            with tenant_context_bind(tenant_id):
                self.models.add(tenant_id)


@pytest.fixture
def mongo_project(fresh_runtime, monkeypatch, tmp_path, mongo_url):
    """A function that makes a ``MongoProject``; ``central`` adds a reserved alias of that name to ``default``."""
    import pymongo

    made = []

    def make(orm_id, default=None, central=False, **options):
        require_orm(orm_id)
        prefix = f"t{uuid.uuid4().hex[:8]}"
        parts = urlsplit(mongo_url)
        address = {"HOST": parts.hostname, "PORT": parts.port or 27017}
        mongo = {"default": default or {"NAME": "template_must_not_be_opened", **address}}
        if central:
            mongo["central"] = {"CONN_URL": f"{mongo_url}/{prefix}_central"}
            options["RESERVED_CONN_ALIASES"] = {"central"}
        orms = {"django_orm": settings.TENANT_ROUTER_ORM_SETTINGS["django_orm"]}
        orms[orm_id] = {"SETTINGS_KEY": "MONGO_DB_SETTINGS", "OPTIONS": options}
        monkeypatch.setattr(settings, "MONGO_DB_SETTINGS", mongo, raising=False)
        monkeypatch.setattr(settings, "TENANT_ROUTER_ORM_SETTINGS", orms)
        tenants = Tenants(fresh_runtime(), tmp_path)
        tenants.delete("nobody.test")
        tenants.runtime.synchronise()
        made.append(MongoProject(orm_id, tenants, mongo_url, prefix))
        return made[-1]

    yield make
    with pymongo.MongoClient(mongo_url) as plain:
        assert "template_must_not_be_opened" not in plain.list_database_names()
        for name in plain.list_database_names():
            if any(name.startswith(f"{project.prefix}_") for project in made):
                plain.drop_database(name)


@pytest.fixture(params=["pymodm_orm", "mongoengine_orm"])
def documents(request, mongo_project):
    """A project with either library, and two tenants."""
    project = mongo_project(request.param)
    project.two()
    return project
