"""Transactions and iterations that an explicit alias alone has named: they end where they began, whatever changes."""

import pytest
from django.db import connections, transaction

from tenant_router.context_decorators import tenant_context_bind
from tests.app.models import Note


def _note(alias, text):
    Note.objects.using(alias).create(text=text)


def test_callbacks_run_although_the_tenant_was_deleted_meanwhile(pair):
    seen = []
    with transaction.atomic(using="a.test_default"):
        _note("a.test_default", "kept")
        transaction.on_commit(lambda: seen.append("ran"), using="a.test_default")
        pair.arrived("a.test", pair.delete("a.test"))
    assert seen == ["ran"]


@pytest.mark.parametrize("literal", ["default", "a.test_default"])
def test_binding_its_tenant_inside_uses_the_connection_of_the_transaction(pair, literal):
    with transaction.atomic(using="a.test_default"):
        began = connections["a.test_default"]
        _note("a.test_default", "within")
        pair.arrived("a.test", pair.put("a.test", pair.record("b.test")))
        with tenant_context_bind("a.test"):
            assert connections[literal] is began
            assert Note.objects.filter(text="within").exists()
            _note(literal, "bound")
    with tenant_context_bind("b.test"):
        assert [note.text for note in Note.objects.all()] == ["of b"]


def test_an_unbound_iteration_by_alias_survives_a_change(pair):
    _note("a.test_default", "second of a")
    rows = Note.objects.using("a.test_default").order_by("id").iterator(chunk_size=1)
    assert next(rows).text == "of a"
    pair.arrived("a.test", pair.put("a.test", pair.record("b.test")))
    with tenant_context_bind("b.test"):
        Note.objects.get(id=1)  # another unit of work of this thread
    assert connections["a.test_default"].settings_dict["NAME"] == str(pair.directory / "b.test.db")
    assert [row.text for row in rows] == ["second of a"]
