"""What the patch of PyModm relies on: a new version that changes it fails here first."""

import inspect

import pytest

pytest.importorskip("pymodm")

import pymodm
from pymodm import connection, context_managers
from pymodm import dereference as dereference_module
from pymodm import fields as fields_module
from pymodm.base import options as options_module
from pymodm.base.options import MongoOptions
from pymodm.common import _DOCUMENT_REGISTRY
from pymodm.fields import FileField


def source(thing):
    return inspect.getsource(thing)


def test_every_alias_is_looked_up_in_one_dictionary_at_each_use():
    assert "return _CONNECTIONS[alias]" in source(connection._get_connection)
    assert "_get_connection(alias).database" in source(connection._get_db)
    assert "_CONNECTIONS[alias] = ConnectionInfo(" in source(connection.connect)
    assert source(connection).count("_CONNECTIONS") == 3


def test_no_module_has_another_way_to_a_database():
    users = {
        module.__name__ for module in (options_module, fields_module, dereference_module) if "_get_db" in vars(module)
    }
    assert users == {"pymodm.base.options", "pymodm.fields", "pymodm.dereference"}
    for module in (options_module, fields_module, dereference_module):
        assert "MongoClient" not in source(module)


def test_a_models_collection_is_made_at_each_access_and_its_indexes_once():
    text = source(MongoOptions.collection.fget)
    assert "_get_db(self.connection_alias).get_collection(" in text
    assert "if self.indexes and not self._indexes_created:" in text
    assert "self._indexes_created = True" in text


def test_what_the_constructor_sets_are_plain_attributes():
    text = source(MongoOptions.__init__)
    for line in ("self.connection_alias = DEFAULT", "self._auto_dereference = True", "self._indexes_created = False"):
        assert line in text


def test_a_file_field_keeps_the_first_storage():
    assert "if self.storage is None:" in source(FileField.__get__)
    assert "self.storage = GridFSStorage(gridfs)" in source(FileField.__get__)
    assert source(fields_module).count("self.storage") == 3


def test_the_switches_change_the_models_options():
    text = source(context_managers.switch_connection)
    assert "self.original_connection_alias = self.model._mongometa.connection_alias" in text
    assert "self.model._mongometa.connection_alias = self.target_connection_alias" in text
    assert "self._auto_dereference = auto_dereference" in source(MongoOptions.auto_dereference.fset)
    assert "with no_auto_dereference(self):" in source(pymodm.MongoModel.full_clean)


def test_all_models_are_registered():
    class Fresh(pymodm.MongoModel):
        pass

    assert _DOCUMENT_REGISTRY.pop(f"{__name__}.Fresh") is Fresh
