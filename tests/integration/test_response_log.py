"""A handler of the log that writes to the tenant's database, as real projects have one, WSGI and ASGI."""

import logging

import pytest
from django.core.exceptions import PermissionDenied
from django.db import OperationalError
from django.http import Http404, HttpResponse
from django.test import Client, override_settings
from django.urls import path

from tenant_router.conf import conf
from tenant_router.context_decorators import tenant_context_bind
from tests import asgi_client
from tests.app.models import Note

HERE = "tests.integration.test_response_log"


def own_503(request):
    return HttpResponse("own", status=503)


async def own_503_async(request):
    return HttpResponse("own", status=503)


def missing(request):
    raise Http404


def denied(request):
    raise PermissionDenied


def boom(request):
    raise ValueError("boom")


def queries(request):
    return HttpResponse(str(Note.objects.count()))


def good(request):
    return HttpResponse("good")


urlpatterns = [
    path("503/", own_503),
    path("503/async/", own_503_async),
    path("missing/", missing),
    path("denied/", denied),
    path("boom/", boom),
    path("queries/", queries),
    path("good/", good),
    path("unbound/", missing, name="unbound"),
]


class ToDatabase(logging.Handler):
    """Writes each line into the database, in a thread where an event loop runs, and lets errors out."""

    def emit(self, record):
        Note.objects.create(text=f"{record.levelname} {self.format(record)}"[:200])


class Remembering(logging.Handler):
    def __init__(self):
        super().__init__()
        self.lines = []

    def emit(self, record):
        self.lines.append(record.getMessage())


@pytest.fixture
def logged():
    """A handler that writes to the database before one that remembers, for all that the middleware or Django logs."""
    names, handlers = ("django.request", "django.security", "tenant_router"), (ToDatabase(), Remembering())
    for name in names:
        for handler in handlers:
            logging.getLogger(name).addHandler(handler)
    yield handlers[1].lines
    for name in names:
        for handler in handlers:
            logging.getLogger(name).removeHandler(handler)


@pytest.fixture(params=["wsgi", "asgi"])
def ask(request, logged):
    """A function that asks for a path of a host, and returns the status."""

    def sync(host, where):
        return Client(raise_request_exception=False).get(where, headers={"host": host}).status_code

    def asynchronous(host, where):
        return asgi_client.get(where, {"host": host}).status_code

    middleware = {"WHITELIST_ROUTES": {"unbound"}}
    only = ["tenant_router.middleware.TenantContextMiddleware"]
    with override_settings(ROOT_URLCONF=HERE, MIDDLEWARE=only, TENANT_ROUTER_MIDDLEWARE_SETTINGS=middleware):
        conf.forget()
        yield sync if request.param == "wsgi" else asynchronous
    conf.forget()


def _lines(tenant_id):
    with tenant_context_bind(tenant_id):
        return [note.text for note in Note.objects.order_by("id") if not note.text.startswith("of ")]


@pytest.mark.parametrize(
    ("where", "status", "line"),
    [
        ("/503/", 503, "ERROR Service Unavailable: /503/"),
        ("/503/async/", 503, "ERROR Service Unavailable: /503/async/"),
        ("/missing/", 404, "WARNING Not Found: /missing/"),
        ("/nowhere/", 404, "WARNING Not Found: /nowhere/"),
        ("/denied/", 403, "WARNING Forbidden (Permission denied): /denied/"),
        ("/boom/", 500, "ERROR Internal Server Error: /boom/"),
        ("/good/", 200, None),
    ],
)
def test_a_tenants_own_response_is_logged_once_in_its_database(pair, ask, where, status, line):
    assert ask("b.test", where) == status
    found = _lines("b.test")
    assert [text[: len(line)] for text in found] == [line] if line else found == []
    assert _lines("a.test") == []


def test_the_middlewares_own_refusals_are_answered(pair, ask, capfd):
    """Unknown, malformed, whitelisted, deleted, suspended: no tenant is bound, and the handler needs one."""
    pair.put("away.test", state="S")
    pair.put("gone.test")
    pair.arrived("gone.test", pair.delete("gone.test"))
    for host, where, status in (
        ("nobody-at-all.test", "/good/", 404),
        ("b_d..host", "/good/", 400),
        ("b.test", "/unbound/", 404),
        ("gone.test", "/good/", 410),
        ("away.test", "/good/", 503),
    ):
        assert ask(host, where) == status
        told = capfd.readouterr().err
        assert "a handler of the log failed: " in told
        assert "/good/" in told or "/unbound/" in told or "b_d..host" in told
    assert _lines("a.test") == _lines("b.test") == []


def test_an_unreachable_database_is_answered(pair, ask, capfd):
    """Django logs the view's error, the middleware its refusal, and both into a database that is away."""
    pair.put("lost.test", pair.record("no/such/folder/lost"))
    pair.arrived("lost.test")
    assert ask("lost.test", "/queries/") == 503
    assert "OperationalError" in capfd.readouterr().err


def test_the_reader_of_the_store_goes_on(pair, logged):
    """Its thread logs while nobody is bound."""
    pair.arrived("a.test", pair.put("a.test", pair.record("b.test")))
    assert pair.runtime.reflector.state == "READY"
    assert any("applied" in line for line in logged)


def test_a_handler_that_fails_by_itself_fails_the_tenants_response_and_no_refusal(pair, ask):
    class Failing(logging.Handler):
        def emit(self, record):
            raise OperationalError("of the handler's own")

    failing = Failing()
    logging.getLogger("django.request").handlers.insert(0, failing)
    try:
        with pytest.raises(OperationalError, match="of the handler's own"):
            Client().get("/missing/", headers={"host": "b.test"})
        assert ask("nobody-at-all.test", "/good/") == 404
    finally:
        logging.getLogger("django.request").removeHandler(failing)


def test_other_handlers_are_told_of_what_is_logged_while_a_tenant_is_bound(pair, ask, logged):
    assert ask("a.test", "/503/") == 503
    assert logged == ["Service Unavailable: /503/"]
