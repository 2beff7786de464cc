"""A test case with a connection, as MongoEngine's tests use it."""

import unittest

from mongoengine import connect
from mongoengine.connection import disconnect_all, get_db

NAME = "mongoenginetest"


class MongoDBTestCase(unittest.TestCase):
    """``db`` is the database of the class's tests, which begins and ends empty."""

    @classmethod
    def setUpClass(cls):
        disconnect_all()
        cls._connection = connect(db=NAME)
        cls._connection.drop_database(NAME)
        cls.db = get_db()

    @classmethod
    def tearDownClass(cls):
        cls._connection.drop_database(NAME)
        disconnect_all()
