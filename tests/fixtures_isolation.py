"""Fixtures: two tenants with equal primary keys and different rows, on SQLite and on PostgreSQL."""

import shutil

import pytest
from django.contrib.auth.models import Group, Permission, User
from django.contrib.contenttypes.models import ContentType
from django.db import connection, connections

from tenant_router.context_decorators import tenant_context_bind
from tests import isolation_models
from tests.app.models import Book, Note, Shelf
from tests.fixtures_orm import create_tables
from tests.isolation_models import Place, Restaurant, Tag, Visit
from tests.tenants import Tenants


def fill(tenant_id, letter):
    """Give a tenant the same primary keys as every other one, and rows that name it."""
    with tenant_context_bind(tenant_id):
        Note.objects.create(id=1, text=f"of {letter}")
        shelf = Shelf.objects.create(id=1, name=f"of {letter}")
        Book.objects.create(id=1, shelf=shelf, title=f"of {letter}")


def fill_more(tenant_id, letter):
    """Rows of what a migrated database has besides: users, permissions, content types, generic relations."""
    with tenant_context_bind(tenant_id):
        if letter == "b":
            _swap_content_types("note", "counter")
            ContentType.objects.create(app_label="isolation", model="earlier")
        place = Restaurant.objects.create(id=1, name=f"of {letter}", stars=1)
        Tag.objects.create(id=1, name=f"of {letter}", content_object=Place.objects.get(id=place.id))
        Tag.objects.create(id=2, name=f"of {letter}", content_object=Note.objects.get(id=1))
        Visit.objects.create(id=1, place_id=place.id, tag_id=1)
        Visit.objects.create(id=2, place_id=place.id, tag_id=2)
        user = User.objects.create(
            id=1, username=f"of {letter}", email="same@example.com", password="same", is_staff=True
        )
        user.groups.add(Group.objects.create(id=1, name=f"of {letter}"))
        user.user_permissions.add(Permission.objects.get(codename="add_note" if letter == "a" else "change_note"))


def _swap_content_types(one, other):
    """The primary key of one is the other's at the other tenant."""
    for old, new in ((one, "swap"), (other, one), ("swap", other)):
        ContentType.objects.filter(app_label="app", model=old).update(model=new)
    ContentType.objects.clear_cache()


@pytest.fixture(scope="session")
def seeds(tmp_path_factory):
    """A folder where the first test that needs it leaves both tenants' SQLite files."""
    return tmp_path_factory.mktemp("seeds")


@pytest.fixture
def pair(router, tmp_path, seeds):
    """``a.test`` and ``b.test``, migrated and filled."""
    tenants = Tenants(router, tmp_path)
    if not any(seeds.iterdir()):
        _make_seeds(Tenants(router, seeds))
    for letter in "ab":
        shutil.copy(seeds / f"seed-{letter}.test.db", tmp_path / f"{letter}.test.db")
        tenants.arrived(f"{letter}.test", tenants.put(f"{letter}.test"))
    return tenants


def _make_seeds(tenants):
    tenants.put("seed-a.test", migrate=True)
    with tenant_context_bind("seed-a.test"):
        with connections["default"].schema_editor() as editor:
            for model in isolation_models.MODELS:
                editor.create_model(model)
        connection.close()
    shutil.copy(tenants.directory / "seed-a.test.db", tenants.directory / "seed-b.test.db")
    tenants.arrived("seed-b.test", tenants.put("seed-b.test"))
    for letter in "ab":
        fill(f"seed-{letter}.test", letter)
        fill_more(f"seed-{letter}.test", letter)


@pytest.fixture
def postgres_pair(on_postgres):
    """``a.test`` and ``b.test`` on PostgreSQL, with the tables of the application alone."""
    tenants = on_postgres()
    for letter in "ab":
        tenants.server.create_database(tenants.name(letter))
        tenants.put(f"{letter}.test", letter)
        create_tables(f"{letter}.test")
        fill(f"{letter}.test", letter)
    return tenants
