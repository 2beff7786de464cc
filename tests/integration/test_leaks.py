"""The corpus of leaky code: each snippet meets its verdict, and docs/leaks.md lists the same."""

import re
from pathlib import Path

import pytest
from django.core.signing import BadSignature

from tenant_router import context
from tenant_router.context_decorators import tenant_context_bind
from tenant_router.exceptions import TenantContextMissing, TenantMismatch
from tests.app.models import Book, Note, Shelf
from tests.leaky import CORPUS

DOCUMENT = Path(__file__).parents[2] / "docs" / "leaks.md"
CLEAR = (TenantMismatch, TenantContextMissing, BadSignature)


def _bind(tenant_id):
    return lambda: tenant_context_bind(tenant_id)


def _run(snippet):
    return snippet(_bind("a.test"), _bind("b.test"))


def _named(kind):
    return [pytest.param(snippet, id=name) for name, (verdict, snippet) in CORPUS.items() if verdict == kind]


def _rows():
    return [list(model.objects.values_list()) for model in (Note, Shelf, Book)]


@pytest.mark.parametrize("snippet", _named("harmless"))
def test_made_harmless(pair, snippet):
    assert _run(snippet) == "of b"
    assert context.stack.get() == ()


@pytest.mark.parametrize("snippet", _named("refused"))
def test_refused_with_a_clear_error(pair, snippet):
    with _bind("b.test")():
        before = _rows()
    with pytest.raises(CLEAR) as refused:
        _run(snippet)
    assert str(refused.value)
    assert context.stack.get() == ()
    with _bind("b.test")():
        assert _rows() == before


@pytest.mark.parametrize("snippet", _named("yours"))
def test_what_no_package_can_see(pair, snippet):
    """Fails when a snippet has become harmless or refused: then its verdict, and the document, are to be changed."""
    assert _run(snippet) == "of a"


def test_the_document_lists_each_snippet_with_its_verdict():
    leaky_mongo = pytest.importorskip("tests.leaky_mongo", reason="pymongo is not installed", exc_type=ImportError)
    leaky_elasticsearch = pytest.importorskip("tests.leaky_elasticsearch", exc_type=ImportError)
    corpora = (CORPUS, leaky_mongo.CORPUS, leaky_elasticsearch.CORPUS)
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (.+) \|$", DOCUMENT.read_text(), re.MULTILINE)
    ours = {name: verdict for corpus in corpora for name, (verdict, *_) in corpus.items()}
    assert {name: verdict for name, verdict, _ in rows} == ours
    assert len(rows) == sum(map(len, corpora))
    assert all(len(remark) > 20 for *_, remark in rows)
