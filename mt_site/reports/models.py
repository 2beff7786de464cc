from pymodm import MongoModel, fields
from pymongo import DESCENDING, IndexModel


class Report(MongoModel):
    """A document of the site's own MongoDB database."""

    title = fields.CharField(max_length=120)
    ward = fields.CharField(max_length=60)
    text = fields.CharField()
    written_at = fields.DateTimeField()

    class Meta:
        final = True
        collection_name = "reports"
        indexes = [IndexModel([("written_at", DESCENDING)])]
