"""Servers that restart, hang or were never there: waits are bounded, other tenants are not harmed, nobody restarts."""

import time

import pytest
from pymongo.errors import PyMongoError

from tenant_router.context_decorators import tenant_context_bind
from tests.fixtures_mongo import QUIET
from tests.tenants import eventually

pytestmark = [pytest.mark.filterwarnings(rule) for rule in QUIET]
SHORT = {"serverSelectionTimeoutMS": 500, "connectTimeoutMS": 500, "socketTimeoutMS": 500, "heartbeatFrequencyMS": 500}
# Seconds that one attempt may take: far more than with these limits, and far from the 30 that others would wait.
BOUND = 15.0


@pytest.fixture
def frail(documents, frail_mongo):
    """``a.test`` on the shared server, ``b.test`` on one that the test may harm."""
    documents.put("b.test", "b", HOST="127.0.0.1", PORT=frail_mongo.port, OPTIONS=SHORT)
    eventually(lambda: found(documents, "b.test") == [])  # it was started just now: the first answer takes it longer
    return documents


def texts(project, tenant_id):
    with tenant_context_bind(tenant_id):
        return project.models.texts()


def refused(project, tenant_id):
    """Fail within the bound."""
    began = time.monotonic()
    with pytest.raises(PyMongoError):
        texts(project, tenant_id)
    assert time.monotonic() - began < BOUND


def found(project, tenant_id):
    try:
        return texts(project, tenant_id)
    except PyMongoError:
        return None


def answers(project, tenant_id):
    return found(project, tenant_id) is not None


def unharmed(project):
    began = time.monotonic()
    assert texts(project, "a.test") == ["a.test"]
    assert time.monotonic() - began < BOUND


def test_a_server_that_restarts(frail, frail_mongo):
    frail_mongo.stop()
    refused(frail, "b.test")
    unharmed(frail)
    frail_mongo.start()
    eventually(lambda: answers(frail, "b.test"))


def test_a_server_that_hangs(frail, frail_mongo):
    frail_mongo.pause()
    refused(frail, "b.test")
    refused(frail, "b.test")
    unharmed(frail)
    frail_mongo.resume()
    eventually(lambda: answers(frail, "b.test"))


def test_a_tenant_leaves_a_server_that_hangs(frail, frail_mongo):
    frail_mongo.pause()
    frail.put("b.test", "b")
    assert texts(frail, "b.test") == ["b.test"]


def test_a_server_that_was_never_there(documents):
    documents.put("b.test", "b", HOST="127.0.0.1", PORT=1, OPTIONS=SHORT)
    refused(documents, "b.test")
    unharmed(documents)


def test_waits_are_bounded_without_any_options(documents):
    documents.put("b.test", "b", HOST="127.0.0.1", PORT=1)
    refused(documents, "b.test")
