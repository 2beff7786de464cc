"""The pytest plugin of ``suites.py``: points the library at the server, and binds a tenant in the one mode."""

import os
from urllib.parse import urlsplit

from pymongo import monitoring

DATABASES = {"pymodm": "pymodm_suite", "mongoengine": "mongoenginetest"}
QUERIES = {"find", "aggregate", "count", "distinct", "getMore", "insert", "update", "delete", "findAndModify"}
LIBRARY, URL = os.environ["SUITE_LIBRARY"], os.environ["MONGO_URL"]


def pytest_configure():
    if LIBRARY == "mongoengine":
        prepare_mongoengine()
    if os.environ["SUITE_MODE"] == "tenant":
        bind()


def prepare_mongoengine():
    """Aliases without an address lead to the server; queries are counted here, as not every server can profile."""
    from mongoengine import connection, context_managers

    server = urlsplit(URL)
    connection.DEFAULT_HOST, connection.DEFAULT_PORT = server.hostname, server.port or 27017
    counter = Counter()
    monitoring.register(counter)
    context_managers.query_counter = lambda alias="default": Counting(counter)


class Counter(monitoring.CommandListener):
    count = 0

    def started(self, event):
        self.count += event.command_name in QUERIES

    def succeeded(self, event):
        pass

    def failed(self, event):
        pass


class Counting:
    """Equals the number of queries since it was entered."""

    def __init__(self, counter):
        self.counter = counter

    def __enter__(self):
        self.before = self.counter.count
        return self

    def __exit__(self, *exception):
        pass

    def __int__(self):
        return self.counter.count - self.before

    def __eq__(self, number):
        return int(self) == number

    __hash__ = None


def bind():
    """A tenant that is found where nothing is bound, in every thread; its database is the one that the suite names."""
    import django
    from django.conf import settings

    settings.configure(
        SECRET_KEY="suite",
        INSTALLED_APPS=["tenant_router"],
        MONGO_DB_SETTINGS={"default": {"CONN_URL": f"{URL}/{DATABASES[LIBRARY]}"}},
        TENANT_ROUTER_SERVICE_NAME="suite",
        TENANT_ROUTER_CONFIG_STORE_SETTINGS={"BACKEND": "tenant_router.config_store.backends.memory.MemoryStore"},
        TENANT_ROUTER_ORM_SETTINGS={f"{LIBRARY}_orm": {"SETTINGS_KEY": "MONGO_DB_SETTINGS"}},
    )
    django.setup()
    from tenant_router import context, runtime
    from tenant_router.tenant_context import PlainContext

    orm_id = f"{LIBRARY}_orm"
    databases = runtime.get().orms[orm_id].prepare("suite", {"default": {"NAME": DATABASES[LIBRARY]}}, None)
    context.set_testing(True, PlainContext("suite", 0, {orm_id: databases}))
