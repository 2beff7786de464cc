"""What reaching the bound tenant's collection costs more than reaching an untenanted one."""

import time
import timeit

import pytest

from tenant_router.context_decorators import tenant_context_bind
from tests.fixtures_mongo import QUIET

pytestmark = [pytest.mark.filterwarnings(rule) for rule in QUIET]
ALLOWED = 2.0  # microseconds


def cost(function, number=2_000):
    """Microseconds of this thread for one call, in the best of many runs: the others met something else."""
    return min(timeit.repeat(function, number=number, repeat=40, timer=time.thread_time)) / number * 1e6


def reach(project):
    models = project.models.module
    if project.orm_id == "pymodm_orm":
        from pymodm.connection import _get_db

        return {"collection": lambda: models.Author._mongometa.collection, "database": _get_db}
    from mongoengine import get_db

    return {"collection": models.Author._get_collection, "objects": lambda: models.Author.objects, "database": get_db}


def test_reaching_the_tenants_collection(documents, mongo_url):
    with tenant_context_bind("a.test"):
        documents.models.texts()
        bound = {what: cost(function) for what, function in reach(documents).items()}
    documents.runtime.uninstall()
    connect = __import__("pymodm" if documents.orm_id == "pymodm_orm" else "mongoengine").connect
    if documents.orm_id == "pymodm_orm":
        from pymodm import connection

        connect(f"{mongo_url}/{documents.name('plain')}")
        plain = {what: cost(function) for what, function in reach(documents).items()}
        connection._CONNECTIONS.pop("default").database.client.close()
    else:
        connect(documents.name("plain"), host=mongo_url)
        plain = {what: cost(function) for what, function in reach(documents).items()}
        __import__("mongoengine").disconnect()
    for what in plain:
        print(f"{documents.orm_id} {what}: {plain[what]:.2f} us plain, {bound[what]:.2f} us bound")
    assert bound["collection"] - plain["collection"] <= ALLOWED
