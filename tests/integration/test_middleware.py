"""From a request to its tenant, and what is answered when there is none; synchronous and asynchronous."""

import asyncio
import copy
import socket
import threading

import pytest
from asgiref.sync import iscoroutinefunction
from django.conf import settings
from django.core.signals import request_finished
from django.db import connection, connections
from django.db.backends.signals import connection_created
from django.http import HttpResponse, JsonResponse
from django.test import Client, RequestFactory, override_settings
from django.urls import path
from django.utils.module_loading import import_string

from tenant_router import context
from tenant_router.conf import conf
from tenant_router.config_store.backends.memory import MemoryStore
from tenant_router.config_store.base import DELETED
from tenant_router.context_decorators import tenant_context_bind
from tenant_router.exceptions import ConfigurationError, TenantNotFound
from tenant_router.managers import tenant_context_manager
from tenant_router.middleware import TenantContextMiddleware
from tenant_router.reactive import unknown_ids
from tests import asgi_client
from tests.tenants import Tenants, eventually

HERE = "tests.integration.test_middleware"
POSTGRES = "django.db.backends.postgresql"
UNAVAILABLE = b"Service temporarily unavailable.\n"


# --- what the project under test consists of ---


def whoami(request):
    return JsonResponse({"alias": connection.alias, "tenant": context.current().id})


async def whoami_async(request):
    return JsonResponse({"alias": connection.alias, "tenant": context.current().id})


def query(request):
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    return HttpResponse("reached")


def wrapped_error(request):
    raise ValueError("boom")


class Closing(HttpResponse):
    """A response that uses its database once more when it is closed."""

    seen: list = []

    def close(self):
        super().close()
        self.seen.append(str(connection.settings_dict["NAME"]))


def closing(request):
    response = Closing("ok")
    response._resource_closers.append(lambda: Closing.seen.append(context.current().id))
    return response


urlpatterns = [
    path("whoami/", whoami),
    path("whoami/async/", whoami_async),
    path("query/", query),
    path("boom/", wrapped_error),
    path("closing/", closing),
]


def resolve_by_query(request):
    return request.GET.get("tenant")


def resolve_to_bytes(request):
    return b"a.test"


def resolve_loudly(request):
    raise TenantNotFound("nobody is asked for here")


class CountingStore(MemoryStore):
    """Notes what is read from it, and by which thread."""

    calls: list = []

    def get_many(self, tenant_ids):
        self.calls.append((threading.get_ident(), "get_many", tuple(tenant_ids)))
        return super().get_many(tenant_ids)

    def head(self):
        self.calls.append((threading.get_ident(), "head", ()))
        return super().head()


@pytest.fixture
def pair(tenants):
    """``a.test`` and ``b.test``; their databases have no tables, so nothing is spent on migrating them."""
    for tenant_id in ("a.test", "b.test"):
        tenants.arrived(tenant_id, tenants.put(tenant_id))
    return tenants


@pytest.fixture
def resolver():
    """A function that chooses the resolver."""
    with pytest.MonkeyPatch.context() as patch:

        def choose(path):
            patch.setattr(settings, "TENANT_ROUTER_MIDDLEWARE_SETTINGS", {"TENANT_ID_RESOLVER": path})
            conf.forget()

        yield choose
    conf.forget()


@pytest.fixture(params=["sync", "async"])
def ask(request):
    """A function that sends one request through the whole stack and returns the response."""

    def send(host="a.test", path="/whoami/", headers=None):
        headers = {"host": host, **(headers or {})}
        if request.param == "sync":
            return Client(raise_request_exception=False).get(path, headers=headers)
        return asgi_client.get(path, headers)

    with override_settings(ROOT_URLCONF=HERE):
        yield send


# --- whose request it is ---


@pytest.mark.parametrize("host", ["a.test", "A.TEST", "A.test.", "a.test:8000", "A.TEST.:8000"])
def test_the_host_names_the_tenant_however_it_is_written(pair, ask, host):
    response = ask(host)
    assert response.status_code == 200, response.content
    assert response.json() == {"alias": "a.test_default", "tenant": "a.test"}


@pytest.mark.parametrize(
    "host",
    ["unknown.test", "[::1]", "[::1]:8000", "a.test.evil", "evil.a.test", "a", "127.0.0.1", "a..test", "x" * 5_000],
)
def test_an_unknown_host_gets_404(pair, ask, host):
    response = ask(host)
    assert (response.status_code, response.content) == (404, b"Not found.\n")
    assert response["Content-Type"] == "text/plain"


@pytest.mark.parametrize(
    "host", ["", "a.test:", "a.test/b.test", "a.test b.test", "a.test,b.test", "a.test:port", "a_b.test", "@a.test"]
)
def test_a_malformed_host_gets_400_and_no_echo(pair, ask, host):
    response = ask(host)
    assert response.status_code == 400
    assert b"test" not in response.content


def test_a_request_without_a_host_belongs_to_nobody(pair):
    request = RequestFactory().get("/whoami/")
    assert "HTTP_HOST" not in request.META
    assert TenantContextMiddleware(whoami)(request).status_code == 404


def test_a_narrower_list_of_allowed_hosts_is_asked_first(pair, ask):
    with override_settings(ALLOWED_HOSTS=["a.test"]):
        assert ask("a.test").status_code == 200
        assert ask("b.test").status_code == 400


def test_a_forwarded_host_counts_only_where_django_is_told_so(pair, ask):
    forwarded = {"x-forwarded-host": "b.test"}
    assert ask("a.test", headers=forwarded).json()["tenant"] == "a.test"
    with override_settings(USE_X_FORWARDED_HOST=True):
        assert ask("a.test", headers=forwarded).json()["tenant"] == "b.test"


def test_no_other_header_has_an_effect(pair, ask):
    spoofed = {"x-tenant-id": "b.test", "tenant-id": "b.test", "forwarded": "host=b.test", "x-host": "b.test"}
    assert ask("a.test", headers=spoofed).json()["tenant"] == "a.test"
    assert ask("unknown.test", headers=spoofed).status_code == 404


def test_the_header_resolver_is_opt_in(pair, ask, resolver):
    resolver("tenant_router.middleware.resolve_by_header")
    assert ask("a.test", headers={"x-tenant-id": "B.test"}).json()["tenant"] == "b.test"


def test_a_missing_header_is_an_unknown_tenant(pair, ask, resolver):
    """Defect (b) of the prototype: a missing header was a 500."""
    resolver("tenant_router.middleware.resolve_by_header")
    assert ask("a.test").status_code == 404


def test_a_resolver_of_the_project_decides(pair, ask, resolver):
    resolver(f"{HERE}.resolve_by_query")
    assert ask("b.test", "/whoami/?tenant=a.test").json()["tenant"] == "a.test"
    assert ask("b.test", "/whoami/?tenant=").status_code == 404


def test_a_resolver_that_finds_nobody_says_so_or_returns_an_empty_text(pair, ask, resolver):
    resolver(f"{HERE}.resolve_by_query")
    assert ask("a.test", "/whoami/?tenant=").status_code == 404
    resolver(f"{HERE}.resolve_loudly")
    assert ask("a.test").status_code == 404


@pytest.mark.parametrize(("name", "kind"), [("resolve_by_query", "NoneType"), ("resolve_to_bytes", "bytes")])
def test_a_resolver_that_returns_no_text_is_an_error(pair, ask, resolver, caplog, name, kind):
    resolver(f"{HERE}.{name}")
    assert ask("a.test").status_code == 500
    assert f"TENANT_ID_RESOLVER']: '{HERE}.{name}' returned {kind} and not text" in caplog.text


@pytest.mark.parametrize("path", ["no.such.module", "tests.integration.test_middleware.nothing", "nodots"])
def test_a_resolver_that_cannot_be_imported_stops_the_server(router, resolver, path):
    resolver(path)
    with pytest.raises(ConfigurationError, match="TENANT_ID_RESOLVER"):
        TenantContextMiddleware(whoami)


def test_an_asynchronous_stack_stays_asynchronous(pair):
    assert iscoroutinefunction(TenantContextMiddleware(whoami_async))
    assert not iscoroutinefunction(TenantContextMiddleware(whoami))


@pytest.mark.parametrize("path", ["/whoami/", "/whoami/async/"])
def test_views_of_both_kinds_are_bound_in_both_stacks(pair, ask, path):
    assert ask("b.test", path).json() == {"alias": "b.test_default", "tenant": "b.test"}


# --- who is turned away ---

CLOSED = {
    "provisioning": ("P", 503, UNAVAILABLE),
    "suspended": ("S", 503, UNAVAILABLE),
    "draining": ("D", 410, b"Gone.\n"),
    "deleted": (DELETED, 410, b"Gone.\n"),
}


def _in_state(tenants, tenant_id, state):
    revision = tenants.put(tenant_id)
    revision = tenants.delete(tenant_id) if state == DELETED else tenants.put(tenant_id, state=state)
    tenants.arrived(tenant_id, revision)


@pytest.mark.parametrize("name", CLOSED)
def test_a_tenant_that_is_not_served_gets_a_constant_answer(tenants, ask, name):
    state, status, body = CLOSED[name]
    _in_state(tenants, "closed.test", state)
    response = ask("closed.test")
    assert (response.status_code, response.content) == (status, body)
    assert response.headers.get("Retry-After") == ("10" if status == 503 else None)
    assert response["Content-Type"] == "text/plain"


def test_a_misconfigured_tenant_gets_503(tenants, ask):
    tenants.put("bad.test", {"orm_config": {"django_orm": {"default": {"NAME": 5}}}})
    tenants.arrived("bad.test")
    response = ask("bad.test")
    assert (response.status_code, response.content, response["Retry-After"]) == (503, UNAVAILABLE, "10")


def test_a_tenant_comes_back_when_it_is_reactivated(tenants, ask):
    _in_state(tenants, "a.test", "S")
    assert ask("a.test").status_code == 503
    tenants.arrived("a.test", tenants.put("a.test"))
    assert ask("a.test").status_code == 200


def _open():
    return [each for each in connections.all(initialized_only=True) if each.connection]


@pytest.mark.parametrize("host", ["unknown.test", "closed.test", "gone.test", "bad.test"])
def test_turning_away_touches_no_database(tenants, ask, host):
    _in_state(tenants, "closed.test", "S")
    _in_state(tenants, "gone.test", DELETED)
    tenants.put("bad.test", {"orm_config": {"django_orm": {"default": {"NAME": 5}}}})
    tenants.arrived("bad.test")
    before = _open()  # what an earlier test left: SQLite in memory is never closed
    opened = []
    connection_created.connect(lambda **kwargs: opened.append(kwargs), weak=False, dispatch_uid="test")
    try:
        assert ask(host).status_code in (404, 410, 503)
    finally:
        connection_created.disconnect(dispatch_uid="test")
    assert opened == []
    assert tenants.runtime.orms["django_orm"].connections.budget.open_count() == 0
    assert _open() == before


def test_no_answer_echoes_what_was_asked_for(tenants, ask):
    _in_state(tenants, "closed.test", "S")
    for host in ("nobody-knows-me.test", "closed.test"):
        response = ask(host, "/whoami/?<script>")
        echoed = response.content + str(response.headers).encode()
        assert b"test" not in echoed.replace(b"text", b"")
        assert b"script" not in echoed


# --- the store ---


@pytest.fixture
def counted(fresh_runtime, tmp_path):
    """Tenants in a store that counts."""
    store = {**settings.TENANT_ROUTER_CONFIG_STORE_SETTINGS, "BACKEND": f"{HERE}.CountingStore"}
    with override_settings(TENANT_ROUTER_CONFIG_STORE_SETTINGS=store):
        runtime = fresh_runtime()
        tenants = Tenants(runtime, tmp_path)
        tenants.delete("nobody.test")
        runtime.synchronise()
        yield tenants


def _reads_by_requests(tenants):
    # A visitor does not wait for a look-up that takes long: it may be under way in its own thread.
    eventually(lambda: not tenants.runtime.records._look_ups._flights)
    reflector = tenants.runtime.reflector._thread.ident
    return [call for call in CountingStore.calls if call[0] != reflector]


def test_a_known_tenant_costs_no_store_call(counted, ask):
    counted.put("a.test")
    counted.arrived("a.test")
    assert ask("a.test").status_code == 200
    CountingStore.calls.clear()
    for _ in range(5):
        assert ask("a.test").status_code == 200
    assert _reads_by_requests(counted) == []


def test_an_unknown_host_is_looked_up_once(counted, ask, monkeypatch):
    monkeypatch.setattr(unknown_ids, "LOOK_UP_PAUSE", 3_600)
    CountingStore.calls.clear()
    for _ in range(5):
        assert ask("unknown.test").status_code == 404
    assert [call[1:] for call in _reads_by_requests(counted)] == [("get_many", ("unknown.test",))]


def test_what_can_be_no_id_is_never_looked_up(counted, ask):
    CountingStore.calls.clear()
    for host in ("[::1]", "x" * 300, "a..test", "-a.test"):
        assert ask(host).status_code == 404
    assert _reads_by_requests(counted) == []


# --- the tenant's own database is down ---


@pytest.fixture
def unreachable(fresh_runtime, tmp_path):
    """A tenant ``down.test`` whose PostgreSQL is not there, beside ``a.test``, whose SQLite is."""
    orms = {"SETTINGS_KEY": "DATABASES", "OPTIONS": {"RESERVED_CONN_ALIASES": {"central"}, "ALLOW_ENGINES": [POSTGRES]}}
    with override_settings(TENANT_ROUTER_ORM_SETTINGS={"django_orm": orms}), socket.socket() as refusing:
        refusing.bind(("127.0.0.1", 0))  # without listening: nobody else can take the port
        port = refusing.getsockname()[1]
        runtime = fresh_runtime()
        tenants = Tenants(runtime, tmp_path)
        database = {"ENGINE": POSTGRES, "NAME": "gone", "HOST": "127.0.0.1", "PORT": port, "PASSWORD": "canary"}
        tenants.put("down.test", {"orm_config": {"django_orm": {"default": database}}})
        tenants.put("a.test")
        runtime.synchronise()
        tenants.arrived("a.test")
        yield tenants


def test_an_unreachable_database_is_503(unreachable, ask):
    response = ask("down.test", "/query/")
    assert (response.status_code, response.content, response["Retry-After"]) == (503, UNAVAILABLE, "10")
    assert ask("a.test", "/query/").status_code == 200


@pytest.mark.parametrize("path", ["/session/", "/notes/", "/notes/async/", "/counter/"])
def test_an_unreachable_database_is_503_wherever_it_is_missed(unreachable, ask, path):
    with override_settings(ROOT_URLCONF="tests.app.urls"):
        assert ask("down.test", path).status_code == 503


def test_the_log_of_an_unreachable_database_has_no_password(unreachable, ask, caplog):
    ask("down.test", "/query/")
    assert "down.test" in caplog.text
    assert "canary" not in caplog.text


def test_any_other_error_stays_a_500(pair, ask):
    response = ask("a.test", "/boom/")
    assert response.status_code == 500
    assert "Retry-After" not in response


# --- whatever happens, the context is restored ---


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt, GeneratorExit])
def test_the_context_is_restored_when_a_view_raises(pair, error):
    """Defect (b) of the prototype: no ``try``/``finally``."""
    seen = []

    def view(request):
        seen.append(context.current().id)
        raise error

    with pytest.raises(error):
        TenantContextMiddleware(view)(_request("a.test"))
    assert seen == ["a.test"]
    assert context.stack.get() == ()


@pytest.mark.parametrize("error", [ValueError, SystemExit, asyncio.CancelledError])
def test_the_context_is_restored_when_an_asynchronous_view_raises(pair, error):
    async def view(request):
        await asyncio.sleep(0)
        raise error

    async def run():
        try:
            await TenantContextMiddleware(view)(_request("a.test"))
        except (ValueError, SystemExit, asyncio.CancelledError) as caught:
            return type(caught), context.stack.get()

    assert asyncio.run(run()) == (error, ())


def test_the_context_is_restored_when_a_request_is_cancelled(pair):
    entered = []

    async def view(request):
        entered.append(context.current().id)
        await asyncio.sleep(60)

    async def run():
        task = asyncio.create_task(TenantContextMiddleware(view)(_request("a.test")))
        while not entered:
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return context.stack.get()

    assert asyncio.run(run()) == ()


def test_a_tenant_that_was_bound_around_the_request_is_bound_again(pair):
    with tenant_context_bind("b.test"):
        response = TenantContextMiddleware(whoami)(_request("a.test"))
        assert response.status_code == 200
        assert context.current().id == "b.test"


def test_interleaved_asynchronous_requests_keep_their_tenants(pair):
    async def view(request):
        seen = set()
        for _ in range(20):
            seen.add((context.current().id, connection.alias))
            await asyncio.sleep(0)
        return JsonResponse({"seen": sorted(seen)})

    async def run():
        middleware = TenantContextMiddleware(view)
        hosts = ["a.test", "b.test"] * 10
        return hosts, await asyncio.gather(*(middleware(_request(host)) for host in hosts))

    hosts, responses = asyncio.run(run())
    for host, response in zip(hosts, responses, strict=True):
        assert response.content.decode() == f'{{"seen": [["{host}", "{host}_default"]]}}'


def _request(host):
    return RequestFactory().get("/whoami/", headers={"host": host})


# --- the end of a response ---


def test_closing_a_response_is_the_tenants_work(pair, ask):
    Closing.seen.clear()
    ask("a.test", "/closing/")
    assert Closing.seen[0] == "a.test"
    assert Closing.seen[1].endswith("a.test.db")
    assert context.stack.get() == ()


def test_receivers_of_request_finished_run_as_the_requests_tenant(pair):
    seen = []
    request_finished.connect(lambda **kwargs: seen.append(context.current()), weak=False, dispatch_uid="test")
    try:
        with override_settings(ROOT_URLCONF=HERE):
            Client().get("/whoami/", headers={"host": "a.test"})
    finally:
        request_finished.disconnect(dispatch_uid="test")
    assert [bound and bound.id for bound in seen] == ["a.test"]


def test_a_refused_request_finishes_once(unreachable):
    seen = []
    request_finished.connect(lambda **kwargs: seen.append(1), weak=False, dispatch_uid="test")
    try:
        with override_settings(ROOT_URLCONF=HERE):
            response = Client(raise_request_exception=False).get("/query/", headers={"host": "down.test"})
    finally:
        request_finished.disconnect(dispatch_uid="test")
    assert (response.status_code, seen) == (503, [1])


# --- live changes ---


def test_a_request_that_began_before_a_change_ends_on_the_old_database(pair):
    def view(request):
        before = str(connection.settings_dict["NAME"])
        revision = pair.put("a.test", pair.record("moved"))
        pair.arrived("a.test", revision)
        eventually(lambda: tenant_context_manager.get_by_id("a.test").revision == revision)
        again = tenant_context_bind("a.test")
        with again:
            inner = str(connection.settings_dict["NAME"])
        query(request)
        return JsonResponse({"names": [before, inner, str(connection.settings_dict["NAME"])]})

    response = TenantContextMiddleware(view)(_request("a.test"))
    assert b"moved" not in response.content
    assert response.content.count(b"a.test.db") == 3
    later = TenantContextMiddleware(lambda request: HttpResponse(connection.settings_dict["NAME"]))(_request("a.test"))
    assert later.content.endswith(b"moved.db")


def test_a_request_that_began_before_its_tenant_was_deleted_ends_well(pair, ask):
    def view(request):
        pair.arrived("a.test", pair.delete("a.test"))
        eventually(lambda: not tenant_context_manager.contains("a.test"))
        return query(request)

    response = TenantContextMiddleware(view)(_request("a.test"))
    assert (response.status_code, response.content) == (200, b"reached")
    assert ask("a.test").status_code == 410


# --- settings are read and left alone ---


def test_nothing_is_taken_out_of_the_settings(fresh_runtime, tmp_path):
    """Defect (o) of the prototype: the middleware popped keys from the dictionary in settings."""
    names = [name for name in dir(settings) if name.startswith("TENANT_ROUTER_")] + ["DATABASES", "CACHES"]
    before = {name: copy.deepcopy(getattr(settings, name)) for name in names}
    for _ in range(2):
        tenants = Tenants(fresh_runtime(), tmp_path)
        tenants.put("a.test")
        assert Client(headers={"host": "a.test"}).get("/whoami/").status_code == 200
    for name in names:
        given = getattr(settings, name)
        assert {key: given[key] for key in before[name]} == before[name] if isinstance(given, dict) else True
        assert given == before[name] or name == "DATABASES"  # Django itself completes DATABASES in place


def test_the_middleware_of_the_settings_is_the_one_under_test():
    assert import_string(settings.MIDDLEWARE[0]) is TenantContextMiddleware
