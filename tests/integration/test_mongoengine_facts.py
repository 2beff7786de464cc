"""What the patch of MongoEngine relies on: a new version that changes it fails here first."""

import inspect
import re
from pathlib import Path

import pytest

pytest.importorskip("mongoengine")

import mongoengine
from mongoengine import connection, context_managers
from mongoengine.base import metaclasses
from mongoengine.base.common import _document_registry
from mongoengine.document import Document
from mongoengine.fields import GridFSProxy
from mongoengine.queryset import base as queryset_base
from mongoengine.queryset.manager import QuerySetManager


def source(thing):
    return inspect.getsource(thing)


def mentions(name):
    """Which files of the library mention ``name``, and how often."""
    root = Path(mongoengine.__file__).parent
    found = {}
    for file in root.rglob("*.py"):
        number = len(re.findall(rf"(?<![\w]){name}\b", file.read_text()))
        if number:
            found[str(file.relative_to(root))] = number
    return found


def test_the_dictionaries_by_alias_are_used_in_one_module():
    for name in ("_dbs", "_connections", "_connection_settings"):
        assert set(mentions(name)) == {"connection.py"}


def test_aliases_are_looked_up_at_each_use():
    assert "if alias not in _dbs:" in source(connection.get_db)
    assert "return _dbs[alias]" in source(connection.get_db)
    assert "if alias in _connections:\n        return _connections[alias]" in source(connection.get_connection)
    assert "prev_conn_setting = _connection_settings[alias]" in source(connection.connect)
    assert "if new_conn_settings != prev_conn_setting:" in source(connection.connect)
    assert "return get_connection(alias)" in source(connection.connect)


def test_a_class_caches_its_collection_in_one_attribute():
    text = source(Document._get_collection)
    assert 'if not hasattr(cls, "_collection") or cls._collection is None:' in text
    assert text.rstrip().endswith("return cls._collection")
    assert 'if cls._meta.get("auto_create_index", True) and db.client.is_primary:' in text
    assert "new_class._collection = None" in source(metaclasses.DocumentMetaclass.__new__)
    assert 'return get_db(cls._meta.get("db_alias", DEFAULT_CONNECTION_NAME))' in source(Document._get_db)
    assert "if self._collection is None:" in source(Document.save)
    assert issubclass(metaclasses.TopLevelDocumentMetaclass, metaclasses.DocumentMetaclass)


def test_the_switches_change_the_class_and_documents_keep_what_they_were_switched_to():
    assert 'self.cls._meta["db_alias"] = self.db_alias' in source(context_managers.switch_db)
    assert "self.cls._get_collection_name = " in source(context_managers.switch_collection)
    for switch in (Document.switch_db, Document.switch_collection):
        assert "self._collection = collection" in source(switch)
        assert "self._get_collection = lambda: collection" in source(switch)


def test_query_sets_keep_collection_and_cursor_in_two_attributes():
    assert "queryset_class(owner, owner._get_collection())" in source(QuerySetManager.__get__)
    assert mentions("_collection_obj") == {"queryset/base.py": 5, "document.py": 2}
    assert set(mentions("_cursor_obj")) == {"queryset/base.py"}
    assert "new_qs._cursor_obj = self._cursor_obj.clone()" in source(queryset_base.BaseQuerySet._clone_into)


def test_files_are_found_through_one_property():
    assert "self._fs = gridfs.GridFS(get_db(self.db_alias), self.collection_name)" in source(GridFSProxy.fs.fget)
    assert "except Exception:" in source(GridFSProxy.get)
    assert mentions("_fs") == {"fields.py": 6}


def test_all_documents_are_registered():
    class Fresh(Document):
        pass

    assert _document_registry.pop("Fresh") is Fresh
