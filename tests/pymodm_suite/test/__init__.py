"""What PyModm's tests ask of a package ``test``, which its source distribution lacks."""

import os
import unittest

import pymongo
from pymodm import connect

MONGO_URI = os.environ["MONGO_URL"]
CLIENT = pymongo.MongoClient(MONGO_URI)
DB = CLIENT["pymodm_suite"]
MONGO_VERSION = tuple(CLIENT.server_info()["versionArray"][:2])
INVALID_MONGO_NAMES = ["$first", "has.dot", "has\x00null"]
VALID_MONGO_NAMES = ["", "dollar$inside", "forty-two"]

connect(f"{MONGO_URI}/pymodm_suite")


class ODMTestCase(unittest.TestCase):
    """Each test begins and ends with an empty database."""

    def tearDown(self):
        CLIENT.drop_database("pymodm_suite")

    def assertEqualsModel(self, expected, model):
        """Compare a document with a model, whatever class it says it is of."""
        found = model.to_son()
        found.pop("_cls", None)
        assert expected == found
