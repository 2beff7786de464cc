"""Models of a project that uses PyModm, as it wrote them for one tenant."""

from pymodm import EmbeddedMongoModel, MongoModel, fields
from pymongo import ASCENDING, IndexModel


class Author(MongoModel):
    name = fields.CharField()


class Remark(EmbeddedMongoModel):
    text = fields.CharField()
    by = fields.ReferenceField(Author)


class Note(MongoModel):
    text = fields.CharField()
    number = fields.IntegerField(default=0)
    author = fields.ReferenceField(Author, on_delete=fields.ReferenceField.CASCADE)
    remarks = fields.EmbeddedDocumentListField(Remark)

    class Meta:
        indexes = [IndexModel([("text", ASCENDING)], name="by_text")]


class Paper(MongoModel):
    upload = fields.FileField()


class Central(MongoModel):
    text = fields.CharField()

    class Meta:
        connection_alias = "central"
