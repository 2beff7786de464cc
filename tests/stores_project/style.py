"""Tests as people write them for pytest."""

import pytest

from tests.stores_project.documents import ALL, CENTRAL, found, write


@pytest.mark.parametrize("number", range(3))
def test_begins_with_nothing(number):
    assert found() == set()
    write()
    assert found() == ALL


@pytest.mark.django_db
def test_with_the_database(tenants):
    assert found() == set()
    with tenants("b"):
        write()
    assert found() == CENTRAL


@pytest.fixture
def written():
    yield
    write()


def test_teardown_writes(written):
    assert found() == set()


def test_after_a_teardown():
    assert found() == set()
