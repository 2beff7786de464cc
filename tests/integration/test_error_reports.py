"""Error reports and log lines name the tenant and never show a password."""

import logging
import sys

import pytest
from django.core import mail
from django.db import OperationalError, connection
from django.http import HttpResponse
from django.test import Client, RequestFactory, override_settings
from django.urls import path
from django.utils.log import AdminEmailHandler
from django.views.debug import ExceptionReporter

from tenant_router.context_decorators import tenant_context_bind
from tenant_router.exceptions import TenantRouterError
from tenant_router.log import TenantFilter

HERE = "tests.integration.test_error_reports"
CANARY = "-".join(("s3cr3t", "canary"))  # reports show lines of source code


def boom(request):
    settings_of_the_view = connection.settings_dict  # a variable of the frame, which reports show
    raise ValueError(f"boom of {settings_of_the_view['USER']}")


def connect(request):
    connection.ensure_connection()
    return HttpResponse()


def fails_on_connecting(request):
    try:
        connection.ensure_connection()
    except OperationalError:
        raise ValueError("and something else went wrong") from None


urlpatterns = [path("boom/", boom), path("connect/", connect), path("fails/", fails_on_connecting)]


@pytest.fixture
def guarded(on_postgres):
    """A tenant whose password is the canary, and whose PostgreSQL is not there."""
    tenants = on_postgres()
    tenants.put("a.test", "a", PASSWORD=CANARY, USER="clerk", HOST="127.0.0.1", PORT="1")
    with override_settings(ROOT_URLCONF=HERE, ADMINS=[("Admin", "admin@example.com")]):
        yield tenants


@pytest.fixture
def mails(monkeypatch):
    """A function that has Django mail its error reports while a request is made, and returns what it mailed."""
    monkeypatch.setattr(mail, "outbox", [], raising=False)
    backend = "django.core.mail.backends.locmem.EmailBackend"
    handler = AdminEmailHandler(include_html=True, email_backend=backend)
    logger = logging.getLogger("django.request")
    logger.addHandler(handler)
    yield mail.outbox
    logger.removeHandler(handler)


def _get(url):
    return Client(raise_request_exception=False).get(url, headers={"host": "a.test"})


def _parts(message):
    return [message.body, *(str(content) for content, kind in message.alternatives)]


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("url", ["/boom/", "/fails/"])
def test_a_mailed_report_names_the_tenant_and_no_password(guarded, mails, url, debug):
    with override_settings(DEBUG=debug):
        response = _get(url)
    assert response.status_code == 500
    (message,) = mails
    for part in _parts(message):
        assert "TENANT_ROUTER_TENANT" in part
        assert "a.test" in part
        assert CANARY not in part
    assert CANARY not in response.content.decode()


def test_the_debug_page_shows_no_password(guarded):
    with override_settings(DEBUG=True):
        page = _get("/boom/").content.decode()
    assert "boom of clerk" in page
    assert "a.test" in page
    assert CANARY not in page


@pytest.mark.parametrize("debug", [False, True])
def test_an_unreachable_database_is_503_and_its_report_shows_no_password(guarded, mails, caplog, debug):
    with override_settings(DEBUG=debug):
        response = _get("/connect/")
    assert response.status_code == 503
    assert CANARY not in response.content.decode()
    assert all(CANARY not in part for message in mails for part in _parts(message))
    assert CANARY not in caplog.text


def _report(function):
    try:
        function()
    except Exception:
        reporter = ExceptionReporter(RequestFactory().get("/"), *sys.exc_info())
        return reporter.get_traceback_text() + reporter.get_traceback_html()
    raise AssertionError("nothing was raised")


@pytest.mark.parametrize("debug", [False, True])
def test_the_report_of_a_failed_connect_shows_no_password(guarded, debug):
    with override_settings(DEBUG=debug), tenant_context_bind("a.test"):
        report = _report(connection.ensure_connection)
    assert "connection failed" in report or "Connection refused" in report
    assert CANARY not in report


def test_the_report_of_a_refused_password_shows_no_password(on_postgres):
    """A server that answers and refuses: the user does not exist."""
    tenants = on_postgres()
    tenants.put("a.test", "missing", PASSWORD=CANARY, USER="nobody-here")
    with override_settings(DEBUG=True), tenant_context_bind("a.test"):
        report = _report(connection.ensure_connection)
    assert "nobody-here" in report or "missing" in report
    assert CANARY not in report


def test_neither_errors_nor_reprs_show_a_password(guarded):
    with tenant_context_bind("a.test") as context:
        shown = [repr(context), repr(context.parts), repr(connection), str(connection.settings_dict["USER"])]
    with pytest.raises(TenantRouterError) as refused:
        connection.ensure_connection()
    assert CANARY not in "".join([*shown, repr(refused.value)])


def test_each_log_line_of_a_request_names_its_tenant(guarded):
    seen = []
    handler = logging.Handler()
    handler.addFilter(TenantFilter())
    handler.emit = lambda record: seen.append((record.name, record.tenant_id))
    logger = logging.getLogger("django.request")
    logger.addHandler(handler)
    try:
        _get("/boom/")
        logger.error("of nobody")
    finally:
        logger.removeHandler(handler)
    assert seen == [("django.request", "a.test"), ("django.request", "-")]
