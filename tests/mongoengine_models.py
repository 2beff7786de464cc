"""Documents of a project that uses MongoEngine, as it wrote them for one tenant."""

from mongoengine import (
    CASCADE,
    Document,
    EmbeddedDocument,
    EmbeddedDocumentListField,
    FileField,
    GenericReferenceField,
    IntField,
    LazyReferenceField,
    ListField,
    ReferenceField,
    SequenceField,
    StringField,
)


class Author(Document):
    name = StringField()


class Remark(EmbeddedDocument):
    text = StringField()
    by = ReferenceField(Author)


class Note(Document):
    text = StringField()
    number = IntField(default=0)
    author = ReferenceField(Author, reverse_delete_rule=CASCADE)
    readers = ListField(ReferenceField(Author))
    anything = GenericReferenceField()
    lazy = LazyReferenceField(Author)
    remarks = EmbeddedDocumentListField(Remark)

    meta = {"indexes": [{"fields": ["text"], "name": "by_text"}]}


class Numbered(Document):
    number = SequenceField()


class Bare(Document):
    text = StringField(unique=True)

    meta = {"auto_create_index": False}


class Paper(Document):
    upload = FileField()


class Central(Document):
    text = StringField()

    meta = {"db_alias": "central"}
