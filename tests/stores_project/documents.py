"""The project's documents, and what its tests do with all of them."""

import mongoengine
import pymodm
from django.conf import settings

from tenant_router.context_decorators import tenant_context_bind
from tenant_router.orm_backends.es_orm import Index, get_client
from tenant_router.tenant_context import FixedContext

MAPPINGS = {"properties": {"text": {"type": "keyword"}}}
SCHEMA = [Index("schema", MAPPINGS), Index("schema", MAPPINGS, using="central")]
REAL = f"{settings.TAG}_real"
held, kept = {}, {}


class Note(pymodm.MongoModel):
    text = pymodm.fields.CharField()

    class Meta:
        collection_name = "notes"


class CentralNote(pymodm.MongoModel):
    text = pymodm.fields.CharField()

    class Meta:
        collection_name = "notes"
        connection_alias = "central"


class Page(mongoengine.Document):
    text = mongoengine.StringField(unique=True)
    meta = {"collection": "pages"}


class CentralPage(mongoengine.Document):
    text = mongoengine.StringField()
    meta = {"collection": "pages", "db_alias": "central"}


class OwnPage(mongoengine.Document):
    text = mongoengine.StringField()
    meta = {"collection": "notes", "db_alias": "own"}


class OwnNote(pymodm.MongoModel):
    text = pymodm.fields.CharField()

    class Meta:
        collection_name = "notes"
        connection_alias = "own"


def hold():
    """While the project starts: connect what the settings do not have, and keep what a real tenant has."""
    from tenant_router import runtime

    for connect in (mongoengine.connect, pymodm.connect):
        for alias in ("own", "central"):
            extra = {"uuidRepresentation": "standard"} if connect is mongoengine.connect else {}
            url = f"{settings.MONGO_URL}/{settings.TAG}_central"
            connect(host=url, alias=alias, **extra) if extra else connect(url, alias)
    records = {"es_orm": {"INDEX_PREFIX": f"{settings.TAG}-acme-"}}
    for orm_id in ("pymodm_orm", "mongoengine_orm", "es_orm"):
        record = records.get(orm_id, {"NAME": REAL})
        held[orm_id] = runtime.get().orms[orm_id].prepare("acme", {"default": record}, None)
    with tenant_context_bind(FixedContext("acme", 1, held)):
        for orm_id in ("pymodm_orm", "mongoengine_orm"):
            kept[orm_id] = held[orm_id]["default"].database["notes"]
            list(kept[orm_id].find())  # there is a connection already


def write(text="x"):
    """One document in each place."""
    for document in (Note, CentralNote, Page, CentralPage):
        document(text=text).save()
    for alias in ("default", "central"):
        get_client(alias).index(index="schema", document={"text": text}, refresh=True)


def found(index="schema"):
    """How many documents there are, by place."""
    counted = {kind.__name__: len(list(kind.objects.all())) for kind in (Note, CentralNote)}
    counted |= {kind.__name__: len(kind.objects) for kind in (Page, CentralPage)}
    counted |= {alias: get_client(alias).count(index=index)["count"] for alias in ("default", "central")}
    return {place for place, number in counted.items() if number}


ALL = {"Note", "CentralNote", "Page", "CentralPage", "default", "central"}
CENTRAL = {"CentralNote", "CentralPage", "central"}
