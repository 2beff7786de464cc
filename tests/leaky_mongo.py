"""Small pieces of code with MongoDB that would leak between tenants, each with its verdict (see ``tests/leaky.py``).

Each snippet gets two functions that bind a tenant, ``a`` and ``b``, and the ``library`` (PyModm or MongoEngine), and
returns what ``b`` sees. Both tenants have a note of the same primary key, which says whose it is.
"""

import threading
from functools import lru_cache

from gridfs import GridFS, GridFSBucket
from pymongo import InsertOne
from pymongo.database import Database

CORPUS = {}
KEY = 1


def verdict(kind, *, sessions=False):
    """Put a snippet into the corpus; ``sessions``: it needs a server that knows them, whose answers mean nothing."""

    def register(snippet):
        CORPUS[snippet.__name__] = (kind, sessions, snippet)
        return snippet

    return register


class Library:
    """What the snippets do, in the words of PyModm or of MongoEngine."""

    def __init__(self, models):
        self.pymodm = models.orm_id == "pymodm_orm"
        self.Note, self.notes = models.module.Note, models.notes

    def note(self, **values):
        return self.Note(**{"_id" if self.pymodm else "id": self.key(), **values})

    def key(self):
        from bson import ObjectId

        return ObjectId("0" * 23 + str(KEY))

    def db(self):
        if self.pymodm:
            from pymodm.connection import _get_db as get_db
        else:
            from mongoengine import get_db
        return get_db()

    def collection(self):
        return self.Note._mongometa.collection if self.pymodm else self.Note._get_collection()

    def text(self):
        """What the bound tenant's own note says."""
        return self.collection().find_one({"_id": self.key()})["text"]


def in_thread(function):
    """What ``function`` returned or raised in a thread of its own, where nothing is bound."""
    found = []

    def run():
        try:
            found.append((function(), None))
        except Exception as error:
            found.append((None, error))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if found[0][1] is not None:
        raise found[0][1]
    return found[0][0]


# --- handles of PyMongo ---


@verdict("refused")
def kept_database(a, b, library):
    with a():
        kept = library.db()
    with b():
        return kept[library.collection().name].find_one()["text"]


@verdict("refused")
def cached_function_that_returns_a_collection(a, b, library):
    @lru_cache
    def notes():
        return library.db()["note"]

    with a():
        notes()
    with b():
        return notes().find_one()["text"]


@verdict("refused")
def kept_collection_of_a_model(a, b, library):
    with a():
        kept = library.collection()
    with b():
        return kept.find_one()["text"]


@verdict("refused")
def kept_collection_that_is_written_to(a, b, library):
    with a():
        kept = library.collection()
    with b():
        kept.update_one({"_id": library.key()}, {"$set": {"text": "of b"}})
        return "of b"


@verdict("refused")
def kept_collection_without_a_tenant(a, b, library):
    with a():
        kept = library.collection()
    return kept.find_one()["text"]


@verdict("refused")
def kept_collection_in_a_thread(a, b, library):
    with b():
        kept = library.collection()
        return in_thread(kept.find_one)["text"]


@verdict("refused")
def kept_collection_with_other_options(a, b, library):
    with a():
        kept = library.db().with_options().get_collection(library.collection().name).with_options()
    with b():
        return kept.find_one()["text"]


@verdict("refused")
def kept_client(a, b, library):
    with a():
        database = library.db()
        client, name = database.client, database.name
    with b():
        return client[name][library.collection().name].find_one()["text"]


@verdict("refused")
def kept_bulk_operations(a, b, library):
    with a():
        kept = library.collection()
        operations = kept.initialize_ordered_bulk_op()
        operations.insert({"text": "of b"})
    with b():
        operations.execute()
        return "of b"


@verdict("refused")
def bulk_write_to_a_kept_collection(a, b, library):
    with a():
        kept = library.collection()
    with b():
        kept.bulk_write([InsertOne({"text": "of b"})])
        return "of b"


@verdict("refused")
def names_of_a_kept_database(a, b, library):
    with a():
        kept = library.db()
    with b():
        kept.list_collection_names()
        return "of b"


@verdict("refused")
def command_of_a_kept_database(a, b, library):
    with a():
        kept = library.db()
    with b():
        kept.command("ping")
        return "of b"


@verdict("refused")
def kept_collection_that_is_renamed(a, b, library):
    with a():
        kept = library.collection()
    with b():
        kept.rename("another")
        return "of b"


@verdict("harmless")
def collection_that_is_looked_up_at_each_use(a, b, library):
    with a():
        library.collection()
    with b():
        return library.collection().find_one()["text"]


# --- what is half read ---


@verdict("refused")
def kept_mongo_cursor(a, b, library):
    with a():
        cursor = library.collection().find()
    with b():
        return next(cursor)["text"]


@verdict("refused")
def rest_of_a_batch_of_a_mongo_cursor(a, b, library):
    with a():
        library.collection().insert_one({"text": "of a"})
        cursor = library.collection().find()
        next(cursor)
    with b():
        return next(cursor)["text"]


@verdict("refused")
def mongo_cursor_continued_nowhere(a, b, library):
    with a():
        cursor = library.collection().find()
    return next(cursor)["text"]


@verdict("refused")
def kept_aggregate(a, b, library):
    with a():
        cursor = library.collection().aggregate([{"$match": {}}])
    with b():
        return next(cursor)["text"]


@verdict("refused")
def iteration_of_documents_across_contexts(a, b, library):
    with a():
        library.Note(text="of a").save()
        documents = iter(library.notes())
        next(documents)
    with b():
        return next(documents).text


# --- query sets ---


@verdict("harmless")
def query_set_of_documents_evaluated_elsewhere(a, b, library):
    with a():
        notes = library.notes()
    with b():
        return next(iter(notes)).text


@verdict("harmless")
def query_set_of_documents_that_another_has_read(a, b, library):
    with a():
        notes = library.notes()
        list(notes)
    with b():
        return next(iter(notes)).text


@verdict("refused")
def query_set_of_documents_evaluated_nowhere(a, b, library):
    with a():
        notes = library.notes()
    return next(iter(notes)).text


# --- files ---


@verdict("refused")
def kept_gridfs(a, b, library):
    with a():
        files = GridFS(library.db())
        files.put(b"of a", _id=1)
    with b():
        GridFS(library.db()).put(b"of b", _id=1)
        return files.get(1).read().decode()


@verdict("refused")
def kept_gridfs_bucket(a, b, library):
    with a():
        files = GridFSBucket(library.db())
    with b():
        files.upload_from_stream("x", b"of b")
        return "of b"


@verdict("refused")
def kept_file(a, b, library):
    with a():
        files = GridFS(library.db())
        files.put(b"of a", _id=1)
        file = files.get(1)
    with b():
        return file.read().decode()


# --- other databases of a shared client ---


def _other(a, library):
    with a():
        return library.db().name


@verdict("refused")
def other_database_of_the_client(a, b, library):
    other = _other(a, library)
    with b():
        return library.db().client[other][library.collection().name].find_one()["text"]


@verdict("refused")
def database_object_of_the_client(a, b, library):
    other = _other(a, library)
    with b():
        return Database(library.db().client, other)[library.collection().name].find_one()["text"]


@verdict("refused")
def databases_that_are_listed(a, b, library):
    with b():
        library.db().client.list_database_names()
        return "of b"


@verdict("refused")
def database_that_is_dropped(a, b, library):
    other = _other(a, library)
    with b():
        library.db().client.drop_database(other)
        return "of b"


@verdict("refused")
def aggregate_into_another_database(a, b, library):
    other = _other(a, library)
    with b():
        library.collection().aggregate([{"$match": {}}, {"$out": {"db": other, "coll": "stolen"}}])
        return "of b"


@verdict("refused")
def aggregate_from_another_database(a, b, library):
    other = _other(a, library)
    stage = {"from": {"db": other, "coll": "note"}, "localField": "_id", "foreignField": "_id", "as": "theirs"}
    with b():
        return next(library.collection().aggregate([{"$lookup": stage}]))["theirs"][0]["text"]


# --- sessions, transactions, change streams ---


@verdict("refused", sessions=True)
def kept_session(a, b, library):
    with a():
        session = library.db().client.start_session()
    with b():
        library.collection().find_one(session=session)
        return "of b"


@verdict("refused", sessions=True)
def kept_client_that_starts_a_session(a, b, library):
    with a():
        client = library.db().client
    with b():
        client.start_session()
        return "of b"


@verdict("refused", sessions=True)
def transaction_that_is_committed_elsewhere(a, b, library):
    with a():
        session = library.db().client.start_session()
        session.start_transaction()
        library.collection().insert_one({"text": "of a"}, session=session)
    with b():
        session.commit_transaction()
        return "of b"


@verdict("refused", sessions=True)
def kept_change_stream(a, b, library):
    with a():
        changes = library.collection().watch()
    with b():
        changes.try_next()
        return "of b"


# --- documents ---


@verdict("yours")
def document_that_is_saved_elsewhere(a, b, library):
    with a():
        note = next(iter(library.notes()))
        note.text = "changed"
    with b():
        note.text = "of a"
        note.save()
        return library.text()
