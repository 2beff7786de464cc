"""Models as PyModm's tests use them."""

from pymodm import MongoModel, fields


class ParentModel(MongoModel):
    fname = fields.CharField("First name", primary_key=True)
    lname = fields.CharField("Last name")
    phone = fields.IntegerField("Phone #", min_value=100)

    class Meta:
        collection_name = "some_collection"


class UserOtherCollection(ParentModel):
    class Meta:
        collection_name = "other_collection"


class User(ParentModel):
    address = fields.CharField()
