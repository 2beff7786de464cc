"""Small pieces of code with Elasticsearch that would leak between tenants, each with its verdict (``tests/leaky.py``).

Each snippet gets two functions that bind a tenant, ``a`` and ``b``, and returns what ``b`` sees. Both tenants have
a document ``1`` in the index ``notes``, whose text says whose it is.
"""

import copy
import pickle
import threading

from elasticsearch import Elasticsearch, helpers
from elasticsearch.dsl import AsyncDocument, Document, Keyword, MultiSearch, Search, connections

from tenant_router.orm_backends.es_orm import get_client

CORPUS = {}


class Note(Document):
    text = Keyword()

    class Index:
        name = "notes"


class AsyncNote(AsyncDocument):
    text = Keyword()

    class Index:
        name = "notes"


def verdict(kind):
    """Put a snippet into the corpus: it is made ``harmless``, it is ``refused``, or it stays ``yours`` to change."""

    def register(snippet):
        CORPUS[snippet.__name__] = (kind, snippet)
        return snippet

    return register


def text():
    """What the bound tenant's own document says."""
    return get_client().get(index="notes", id="1")["_source"]["text"]


# --- searches ---


@verdict("harmless")
def es_search_of_a_module_that_was_executed(a, b):
    search = Search(index="notes")
    with a():
        search.execute()
        assert search.count() == 1
    with b():
        return search.execute()[0].text


@verdict("harmless")
def es_search_of_a_module_that_is_iterated(a, b):
    search = Note.search()
    with a():
        list(search)
    with b():
        return next(iter(search)).text


@verdict("harmless")
def es_several_searches_of_a_module(a, b):
    search = MultiSearch().add(Search(index="notes"))
    with a():
        search.execute()
    with b():
        return search.execute()[0][0].text


@verdict("harmless")
def es_search_within_one_unit_of_work(a, b):
    search = Search(index="notes")
    with a():
        search.execute()
        with b():
            return search.execute()[0].text


@verdict("harmless")
def es_search_that_was_pickled(a, b):
    search = Search(index="notes")
    with a():
        search.execute()
        kept = pickle.dumps(search)
        copied = copy.deepcopy(search)
    with b():
        assert copied.execute()[0].text == "of b"
        return pickle.loads(kept).execute()[0].text


@verdict("refused")
def es_search_that_is_executed_nowhere(a, b):
    search = Search(index="notes")
    with a():
        search.execute()
    return search.execute()[0].text


@verdict("yours")
def es_hits_that_were_kept(a, b):
    with a():
        found = Search(index="notes").execute()
    with b():
        return found[0].text


# --- documents ---


@verdict("refused")
def es_document_saved_elsewhere(a, b):
    with a():
        note = Note.get("1")
    with b():
        note.save()


@verdict("refused")
def es_document_updated_elsewhere(a, b):
    with a():
        note = next(iter(Note.search()))
    with b():
        note.update(text="of a")


@verdict("refused")
def es_document_deleted_elsewhere(a, b):
    with a():
        (note,) = Note.mget(["1"])
    with b():
        note.delete()


@verdict("refused")
def es_document_that_was_saved_is_saved_elsewhere(a, b):
    note = Note(meta={"id": "1"}, text="of a")
    with a():
        note.save()
    with b():
        note.save()


@verdict("refused")
def es_document_of_a_bulk_elsewhere(a, b):
    with a():
        note = Note.get("1")
    with b():
        Note.bulk([note])


@verdict("refused")
def es_document_given_to_the_bulk_helper_elsewhere(a, b):
    with a():
        note = Note.get("1")
    with b():
        helpers.bulk(get_client(), [note.to_dict(include_meta=True)])


@verdict("refused")
def es_document_that_was_pickled(a, b):
    with a():
        kept = pickle.dumps(Note.get("1"))
    with b():
        pickle.loads(kept).save()


@verdict("refused")
def es_document_that_was_copied(a, b):
    with a():
        kept = copy.deepcopy(Note.get("1"))
    with b():
        kept.save()


@verdict("harmless")
def es_document_made_of_values(a, b):
    with a():
        values = Note.get("1").to_dict()
    with b():
        Note(**values, meta={"id": "2"}).save()
        return text()


# --- clients ---


@verdict("harmless")
def es_client_of_a_module(a, b):
    client = get_client()
    with a():
        client.search(index="notes")
    with b():
        return client.get(index="notes", id="1")["_source"]["text"]


@verdict("refused")
def es_client_that_was_kept(a, b):
    with a():
        client = get_client()
    with b():
        return client.get(index="notes", id="1")


@verdict("refused")
def es_options_of_a_client_that_was_kept(a, b):
    with a():
        indices = get_client().options(request_timeout=60).indices
    with b():
        return indices.get(index="*")


@verdict("harmless")
def es_connection_that_is_made(a, b):
    made = connections.create_connection(hosts=["http://127.0.0.1:1"])
    with b():
        return made.get(index="notes", id="1")["_source"]["text"]


@verdict("refused")
def es_connection_that_is_made_and_used_nowhere(a, b):
    return connections.create_connection("default", hosts=["http://127.0.0.1:1"]).search(index="notes")


@verdict("refused")
def es_client_in_a_thread(a, b):
    found = []
    client = get_client()
    with b():
        thread = threading.Thread(target=lambda: found.append(_error(lambda: client.search(index="notes"))))
        thread.start()
        thread.join()
    raise found[0]


def _error(function):
    try:
        function()
    except Exception as error:
        return error


@verdict("yours")
def es_client_of_your_own(a, b):
    """It reaches every index of the cluster, by its real name: here that of a's."""
    with a() as bound:
        scope = bound.parts["es_orm"]["default"].scope
    hosts = list(scope.shared.cluster.hosts)
    with b(), Elasticsearch(hosts) as client:
        return client.get(index=f"{scope.prefix}notes", id="1")["_source"]["text"]
