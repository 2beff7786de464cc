"""The corpus of leaky code with MongoDB: each snippet meets its verdict, in both libraries."""

import pytest

pytest.importorskip("pymongo")

from tenant_router import context
from tenant_router.context_decorators import tenant_context_bind
from tenant_router.exceptions import TenantContextMissing, TenantMismatch
from tests.fixtures_mongo import QUIET
from tests.leaky_mongo import CORPUS, Library
from tests.mongo_wire import WireServer

pytestmark = [
    *(pytest.mark.filterwarnings(rule) for rule in QUIET),
    pytest.mark.filterwarnings("ignore:initialize_ordered_bulk_op is deprecated:DeprecationWarning"),
]


def bind(tenant_id):
    return lambda: tenant_context_bind(tenant_id)


A, B = bind("a.test"), bind("b.test")


@pytest.fixture(params=["pymodm_orm", "mongoengine_orm"])
def project(request, mongo_project):
    made = mongo_project(request.param)
    made.put("a.test", "a")
    made.put("b.test", "b")
    return made


@pytest.fixture
def library(project):
    made = Library(project.models)
    for tenant, whose in ((A, "of a"), (B, "of b")):
        with tenant():
            made.note(text=whose).save()
    return made


@pytest.fixture
def server():
    server = WireServer()
    yield server
    server.stop()


@pytest.fixture
def with_sessions(project, server):
    for tenant_id in ("a.test", "b.test"):
        project.tenants.delete(tenant_id)
        project.put(tenant_id, tenant_id[0], HOST="127.0.0.1", PORT=server.port)
    return Library(project.models)


def named(kind, sessions=False):
    found = [name for name, (verdict, needs, _) in CORPUS.items() if (verdict, needs) == (kind, sessions)]
    return [pytest.param(CORPUS[name][2], id=name) for name in found]


@pytest.mark.parametrize("snippet", named("harmless"))
def test_made_harmless(library, snippet):
    assert snippet(A, B, library) == "of b"
    assert context.stack.get() == ()


@pytest.mark.parametrize("snippet", named("yours"))
def test_what_no_package_can_see(library, snippet):
    assert snippet(A, B, library) == "of a"


@pytest.mark.parametrize("snippet", named("refused"))
def test_refused_with_a_clear_error(library, snippet):
    with pytest.raises((TenantMismatch, TenantContextMissing)) as refused:
        snippet(A, B, library)
    assert "b.test" in str(refused.value) or isinstance(refused.value, TenantContextMissing)
    for tenant, whose in ((A, "of a"), (B, "of b")):
        with tenant():
            assert {note.text for note in library.notes()} == {whose}
            assert "stolen" not in library.db().list_collection_names()


@pytest.mark.parametrize("snippet", named("refused", sessions=True))
def test_refused_where_there_are_sessions(with_sessions, snippet):
    with pytest.raises((TenantMismatch, TenantContextMissing), match=r"'a\.test'"):
        snippet(A, B, with_sessions)
