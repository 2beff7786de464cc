"""Test runs of a project with MongoDB and Elasticsearch: nothing real is reached, nothing is left.

The suite is that of ``tests/stores_project``, in processes of its own. What is real there has a
document in each place.
"""

import io
import os
import subprocess
import sys
import uuid
from contextlib import nullcontext
from fnmatch import fnmatch
from pathlib import Path

import pytest

from tenant_router.exceptions import ConfigurationError, RealDatabase
from tenant_router.orm_backends.base import BaseOrmManager, BaseTestDatabases
from tenant_router.testing.orm_databases import OrmDatabases, Wishes
from tests.fixtures_elasticsearch import url as elasticsearch_url
from tests.fixtures_mongo import require_orm

ROOT = Path(__file__).resolve().parent.parent.parent
PROJECT = "tests.stores_project"
SPAWNED = f"""
if __name__ == "__main__":
    import multiprocessing
    from django.core.management import execute_from_command_line
    multiprocessing.set_start_method("spawn")
    labels = ["{PROJECT}.suite.Tenants", "{PROJECT}.suite.InTransactions"]
    execute_from_command_line(["manage.py", "test", "--noinput", "--parallel", "2", *labels])
"""


class Run:
    """Runs the project's suites; ``real`` and ``left`` are what the servers have."""

    def __init__(self, directory, mongo, elastic):
        self.directory, self.mongo, self.elastic = directory, mongo, elastic
        self.tag = f"t{uuid.uuid4().hex[:8]}"
        self.env = {**os.environ, "PYTHONPATH": str(ROOT), "DJANGO_SETTINGS_MODULE": f"{PROJECT}.settings"}
        self.env |= {"STORES_TAG": self.tag, "PYTEST_ADDOPTS": ""}
        for name in ("real", "central"):
            for collection in ("notes", "pages"):
                mongo[f"{self.tag}_{name}"][collection].insert_one({"_id": "canary"})
        for index in ("canary", "acme-canary"):
            elastic.index(index=f"{self.tag}-{index}", id="canary", document={}, refresh=True)

    def __call__(self, *command, **env):
        return subprocess.run(
            [sys.executable, "-W", "ignore", *command],
            env={**self.env, **env},
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=170,
            check=False,
        )

    def django(self, *args, labels=("suite",), **kwargs):
        return self("-m", "django", "test", *args, *(f"{PROJECT}.{label}" for label in labels), **kwargs)

    def pytest(self, *args):
        ini = ROOT / "tests" / "stores_project" / "pytest.ini"
        return self("-m", "pytest", "-c", str(ini), "--rootdir", str(ini.parent), *args, str(ini.parent / "style.py"))

    def real(self):
        names = [f"{self.tag}_{name}" for name in ("real", "central")]
        documents = {
            f"{name}.{collection}": list(self.mongo[name][collection].find())
            for name in names
            for collection in self.mongo[name].list_collection_names()
        }
        self.elastic.indices.refresh(index=f"{self.tag}-*")
        hits = self.elastic.search(index=f"{self.tag}-*")["hits"]["hits"]
        return documents, {hit["_index"]: hit["_id"] for hit in hits}

    def left(self):
        """The names with our tag that are not those of the canaries."""
        found = [name for name in self.mongo.list_database_names() if self.tag in name]
        found += list(self.elastic.indices.get(index=f"*{self.tag}*", expand_wildcards="all"))
        return {name for name in found if not name.startswith(self.tag)}

    def clean(self, pattern):
        """Remove what is called so, perhaps after a test that has failed."""
        for name in self.mongo.list_database_names():
            if fnmatch(name, pattern):
                self.mongo.drop_database(name)
        found = list(self.elastic.indices.get(index=pattern, expand_wildcards="all"))
        if found:
            self.elastic.indices.delete(index=found)


@pytest.fixture(scope="module")
def project(tmp_path_factory, mongo_url):
    for orm_id in ("pymodm_orm", "mongoengine_orm"):
        require_orm(orm_id)
    address = elasticsearch_url()
    from elasticsearch import Elasticsearch
    from pymongo import MongoClient

    with MongoClient(mongo_url) as mongo, Elasticsearch(address, request_timeout=60) as elastic:
        made = Run(tmp_path_factory.mktemp("runs"), mongo, elastic)
        try:
            yield made
        finally:
            made.clean(f"*{made.tag}*")


@pytest.fixture
def run(project):
    before = project.real()
    assert len(before[0]) == 4
    assert len(before[1]) == 2
    try:
        yield project
        assert project.real() == before
    finally:
        project.clean(f"test_{project.tag}*")


PARALLEL = {
    "forked": lambda run: run.django("--noinput", "--parallel", "2", STORES_ALIASES="tenant"),
    "spawned": lambda run: run("spawned.py"),
    "xdist": lambda run: run.pytest("-n", "2"),
}


@pytest.mark.parametrize("how", PARALLEL)
def test_nothing_real_is_reached_and_nothing_is_left_by_several_processes(run, how):
    (run.directory / "spawned.py").write_text(SPAWNED)
    done = PARALLEL[how](run)
    assert done.returncode == 0, done.stdout + done.stderr
    assert run.left() == set()


def test_one_run_after_the_other(run):
    """One is killed, the next uses its databases and keeps them, the last removes them."""
    done = run.django("--noinput", labels=["suite.Killed"], STORES_KILL="1")
    assert done.returncode == -9, done.stderr
    kept = run.left()
    assert len(kept) == 9  # three ORMs, each of two tenants and of what is central
    notes = [run.mongo[name].notes for name in kept if name.startswith(f"test_{run.tag}_real")]
    assert [note["text"] for collection in notes for note in collection.find()] == ["left"]

    done = run.django("--noinput", "--keepdb", labels=["suite.Killed", "suite.Real"])
    assert done.returncode == 0, done.stderr
    assert run.left() == kept
    assert not [note for collection in notes for note in collection.find()]
    for collection in notes:
        collection.insert_one({"text": "of an older run"})

    done = run.pytest("--create-db")
    assert done.returncode == 0, done.stdout + done.stderr
    assert run.left() == set()


# --- without a server ---


class ForeignManager(BaseOrmManager):
    def prepare(self, tenant_id, config, previous):
        return {}

    def retire(self, previous, current):
        pass


class Refusing(BaseTestDatabases):
    """Of a server that is away."""

    begin = end = prepare = remove = flush = lambda self, *args: {}

    def exists(self, alias, name):
        raise ConnectionRefusedError("nobody listens")


class Left(Refusing):
    """Whose databases are there from a killed run. ``removed``: how many were removed."""

    removed = 0

    def exists(self, alias, name):
        return True

    def remove(self, alias, name):
        self.removed += 1


@pytest.mark.parametrize(("answer", "removed"), [("no", 0), ("yes", 1)])
def test_what_a_killed_run_has_left_is_asked_about(monkeypatch, capsys, answer, removed):
    manager = ForeignManager("foreign_orm", {"default": {}}, {})
    manager.test_databases = Left
    databases = OrmDatabases(manager, "shop")
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{answer}\n"))
    with pytest.raises(SystemExit) if answer == "no" else nullcontext():
        databases.create(["a"], "", Wishes(interactive=True))
    assert databases._databases.removed == removed
    said = capsys.readouterr().err
    assert "There is already a test database" in said
    assert ("Tests cancelled." in said) is (answer == "no")


def test_a_manager_without_test_databases_is_told_what_to_do():
    manager = ForeignManager("foreign_orm", {"default": {}}, {})
    with pytest.raises(ConfigurationError, match=r"'foreign_orm'.*ForeignManager\.test_databases must be a subclass"):
        OrmDatabases(manager, "shop")


def test_a_server_that_is_away_is_said_once_and_refused_where_it_is_used(capsys):
    manager = ForeignManager("foreign_orm", {"default": {}}, {})
    manager.test_databases = Refusing
    databases = OrmDatabases(manager, "shop")
    databases.create(["a", "b"], "", Wishes())
    assert capsys.readouterr().err.count("nobody listens") == 1
    with pytest.raises(RealDatabase, match="ConnectionRefusedError: nobody listens"):
        databases.admit("test_shop")


def test_templates_whose_records_have_the_rest():
    """A run begins; what has nowhere to be is refused where it is used."""
    pytest.importorskip("pymodm")
    pytest.importorskip("elasticsearch")
    from tenant_router.orm_backends.es_orm.manager import EsOrmManager
    from tenant_router.orm_backends.pymodm_orm.manager import PymodmOrmManager

    managers = [EsOrmManager("es_orm", {"default": {}}, {})]
    mechanism = {"OPTIONS": {"authMechanism": "SCRAM-SHA-256"}}
    halves = ({}, {"USER": "u"}, {"PASS": "p"}, mechanism)
    managers += [PymodmOrmManager("pymodm_orm", {"default": half}, {}) for half in halves]
    for manager in managers:
        assert OrmDatabases(manager, "shop").parts("a", "").keys() == {"default"}
    databases = OrmDatabases(managers[0], "shop")
    databases.create(["a"], "", Wishes())
    with pytest.raises(RealDatabase, match="no HOSTS"):
        databases.admit("test_shop")


def test_no_two_databases_have_one_name():
    pytest.importorskip("pymodm")
    from tenant_router.orm_backends.pymodm_orm.manager import PymodmOrmManager

    long = "x" * 60
    names = []
    for settings in ({}, {"NAME": "shop"}, {"NAME": long}, {"NAME": f"{long}y"}):
        for orm_id in ("pymodm_orm", "other_orm"):
            manager = PymodmOrmManager(orm_id, {"default": settings, "second": settings}, {})
            databases = OrmDatabases(manager, "service")
            for tenant_id in ("a", "b", "a.b"):
                for label in ("", "1", "gw1"):
                    names += databases._names(tenant_id, label).values()
    assert len(set(names)) == len(names) == 4 * 2 * 2 * 3 * 3
    assert all(name.startswith("test_") and len(name) <= 63 for name in names)
