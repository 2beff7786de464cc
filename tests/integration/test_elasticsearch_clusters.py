"""Two tenants on two Elasticsearch clusters, each with the whole cluster to itself: isolation by address alone."""

import os
import threading

import pytest

from tenant_router.context_decorators import tenant_context_bind
from tenant_router.orm_backends.es_orm import get_client
from tests.fixtures_elasticsearch import url
from tests.services import require
from tests.tenants import eventually


@pytest.fixture
def clusters(es_project):
    """``a`` has the first cluster; ``b`` has the second, and a prefix on the first where it may move to."""
    other = os.environ.get("OTHER_ELASTICSEARCH_URL", "")
    require(other, "OTHER_ELASTICSEARCH_URL is not set: there is no second Elasticsearch node")
    es = es_project(ALLOW_SHARED_DATABASES=True)
    es.a, es.b, es.index = es.id("a"), es.id("b"), es.id("books")
    es.own, es.moved = {"HOSTS": [other], "INDEX_PREFIX": ""}, {"HOSTS": [url()], "INDEX_PREFIX": f"{es.b}-"}
    es.put(es.a, es.record("a", es={"INDEX_PREFIX": ""}))
    _fill(es, es.a, "a")
    for place in (es.moved, es.own):
        es.put(es.b, es.record("b", es=place))
        _fill(es, es.b, f"b{place['INDEX_PREFIX']}")
    yield es
    es.put(es.b, es.record("b", es=es.own))
    with tenant_context_bind(es.b):
        get_client().indices.delete(index=es.index)


def _fill(es, tenant_id, owner):
    with tenant_context_bind(tenant_id):
        get_client().index(index=es.index, id="1", document={"owner": owner}, refresh=True)


def _owner(es):
    return get_client().get(index=es.index, id="1")["_source"]["owner"]


def test_each_finds_its_own_cluster(clusters):
    for tenant_id, owner in ((clusters.a, "a"), (clusters.b, "b"), (clusters.a, "a")):
        with tenant_context_bind(tenant_id):
            assert _owner(clusters) == owner


def test_eight_threads_while_one_of_them_moves_between_the_clusters(clusters):
    stop, wrong, errors, units = threading.Event(), [], [], [0] * 8

    def work(number):
        tenant_id = (clusters.a, clusters.b)[number % 2]
        try:
            while not stop.is_set():
                with tenant_context_bind(tenant_id) as bound:
                    prefix = bound.parts["es_orm"]["default"].scope.prefix
                    expected = "a" if tenant_id == clusters.a else f"b{prefix}"
                    found = {_owner(clusters), _owner(clusters)}
                    if found != {expected}:
                        wrong.append((expected, found))
                units[number] += 1
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=[number]) for number in range(8)]
    for thread in threads:
        thread.start()
    try:
        for number in range(20):
            clusters.put(clusters.b, clusters.record("b", es=clusters.moved if number % 2 else clusters.own))
        eventually(lambda: errors or min(units) > 3, 60)  # on a busy machine, the moves are over before
    finally:
        stop.set()
    for thread in threads:
        thread.join(30)
    assert (errors, wrong) == ([], [])
