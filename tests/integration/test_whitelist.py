"""Routes in ``WHITELIST_ROUTES`` bypass the middleware, however they are spelled."""

import contextvars

import pytest
from django.conf import settings
from django.core import signals
from django.http import HttpResponse
from django.test import Client, RequestFactory, override_settings
from django.urls import include, path, re_path, register_converter
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.cache import never_cache

from tenant_router import context
from tenant_router.conf import conf
from tenant_router.managers import tenant_context_manager
from tenant_router.managers.task_local import tls_tenant_manager
from tenant_router.middleware import TenantContextMiddleware
from tests import asgi_client
from tests.app.models import Note

HERE = "tests.integration.test_whitelist"


def bound():
    return HttpResponse(context.current().id if context.current() else "unbound")


def function_view(request, **kwargs):
    return bound()


def uses_the_database(request):
    return HttpResponse(str(Note.objects.count()))


async def async_view(request):
    return bound()


@never_cache
def decorated(request):
    return bound()


class ClassView(View):
    def get(self, request, **kwargs):
        return bound()


@method_decorator(never_cache, name="dispatch")
class Decorated(ClassView):
    pass


class Callable:
    def __call__(self, request):
        return bound()


class NoteConverter:
    """A path converter that asks the database, as some do."""

    regex = "[0-9]+"

    def to_python(self, value):
        Note.objects.count()
        return value


register_converter(NoteConverter, "note_of_a_tenant")

inner = ([path("named/<int:number>/", function_view, name="inner_name")], "application")
urlpatterns = [
    path("function/", function_view, name="function_name"),
    path("class/", ClassView.as_view(), name="class_name"),
    path("with/<int:number>/", function_view),
    path("decorated/", decorated),
    path("class/decorated/", Decorated.as_view()),
    path("class/wrapped/", never_cache(ClassView.as_view())),
    path("callable/", Callable()),
    path("async/", async_view),
    re_path(r"^regex/(?P<number>[0-9]+)/$", function_view),
    path("space/", include(inner, namespace="instance")),
    path("plain/", include([path("included/", function_view, name="included_name")])),
    path("notes/", uses_the_database),
    path("note/<note_of_a_tenant:number>/", function_view),
]


@pytest.fixture
def whitelist(tenants):
    """A function that sets ``WHITELIST_ROUTES``; there is one tenant, ``a.test``."""
    tenants.arrived("a.test", tenants.put("a.test"))
    with pytest.MonkeyPatch.context() as patch, override_settings(ROOT_URLCONF=HERE):

        def choose(*routes):
            patch.setattr(settings, "TENANT_ROUTER_MIDDLEWARE_SETTINGS", {"WHITELIST_ROUTES": set(routes)})
            conf.forget()

        yield choose
    conf.forget()


@pytest.fixture(params=["sync", "async"])
def ask(request):
    def send(url, host="a.test"):
        if request.param == "async":
            return asgi_client.get(url, {"host": host})
        return Client(raise_request_exception=False).get(url, headers={"host": host})

    return send


SPELLINGS = [
    (f"{HERE}.function_view", "/function/"),
    (f"{HERE}.function_view", "/with/5/"),
    (f"{HERE}.ClassView", "/class/"),
    (f"{HERE}.decorated", "/decorated/"),
    (f"{HERE}.Decorated", "/class/decorated/"),
    (f"{HERE}.ClassView", "/class/wrapped/"),
    (f"{HERE}.Callable", "/callable/"),
    (f"{HERE}.async_view", "/async/"),
    ("function/", "/function/"),
    ("with/<int:number>/", "/with/5/"),
    (r"^regex/(?P<number>[0-9]+)/$", "/regex/5/"),
    ("space/named/<int:number>/", "/space/named/5/"),
    ("plain/included/", "/plain/included/"),
    ("function_name", "/function/"),
    ("class_name", "/class/"),
    ("included_name", "/plain/included/"),
    ("instance:inner_name", "/space/named/5/"),
]


@pytest.mark.parametrize(("route", "url"), SPELLINGS, ids=[f"{route} {url}" for route, url in SPELLINGS])
def test_each_spelling_lets_its_route_through_unbound(whitelist, ask, route, url):
    whitelist(route)
    assert ask(url).content == b"unbound"
    assert ask(url, "unknown.test").content == b"unbound"


@pytest.mark.parametrize(
    ("route", "url"),
    [
        ("class_name", "/function/"),
        ("function", "/function/"),
        ("/function/", "/function/"),
        ("function_view", "/function/"),
        ("inner_name", "/space/named/5/"),
        ("application:inner_name", "/space/named/5/"),
        ("with/5/", "/with/5/"),
        (f"{HERE}.ClassView", "/class/decorated/"),
    ],
)
def test_what_only_looks_like_a_route_lets_nothing_through(whitelist, ask, route, url):
    whitelist(route)
    assert ask(url).content == b"a.test"
    assert ask(url, "unknown.test").status_code == 404


def test_other_routes_stay_bound(whitelist, ask):
    whitelist("function_name")
    assert ask("/class/").content == b"a.test"
    assert ask("/class/", "unknown.test").content == b"Not found.\n"


def test_a_path_that_is_no_route_is_answered_by_tenant(whitelist, ask):
    whitelist("function_name")
    assert ask("/nowhere/", "unknown.test").content == b"Not found.\n"
    assert ask("/nowhere/").status_code == 404


def test_a_whitelisted_route_cannot_touch_a_template(whitelist, ask):
    whitelist("notes/")
    assert ask("/notes/").status_code == 500


def test_a_whitelisted_route_runs_unbound_even_inside_another_tenants_stack(whitelist):
    whitelist("function_name")
    middleware = TenantContextMiddleware(function_view)
    assert middleware(RequestFactory().get("/function/", headers={"host": "a.test"})).content == b"unbound"


def test_a_script_name_is_no_part_of_the_route(whitelist):
    whitelist("function/")
    client = Client(SCRIPT_NAME="/below")
    assert client.get("/function/", headers={"host": "unknown.test"}).content == b"unbound"


def test_a_url_configuration_of_the_request_decides(whitelist):
    whitelist("space:named")
    request = RequestFactory().get("/ns/named/", headers={"host": "unknown.test"})
    middleware = TenantContextMiddleware(lambda request: bound())
    assert middleware(request).status_code == 404
    request.urlconf = "tests.app.urls"
    assert middleware(request).content == b"unbound"


def test_a_converter_that_asks_the_database_is_asked_again_when_the_tenant_is_bound(whitelist, tenants):
    whitelist("function_name")
    tenants.migrate("a.test")
    assert Client().get("/note/5/", headers={"host": "a.test"}).content == b"a.test"


@pytest.mark.parametrize("kind", [set, frozenset, list, tuple])
def test_any_collection_of_routes_will_do(whitelist, kind):
    whitelist("function_name")
    settings.TENANT_ROUTER_MIDDLEWARE_SETTINGS["WHITELIST_ROUTES"] = kind(["function_name"])
    conf.forget()
    assert Client().get("/function/", headers={"host": "unknown.test"}).content == b"unbound"


@pytest.mark.parametrize("url", ["/health/", "/health/7/", "/ns/named/"])
def test_the_projects_own_whitelisted_routes_are_refused_the_database(router, url):
    assert Client().get(url, headers={"host": "unknown.test"}).content == b"TenantContextMissing"


# --- what is left bound ---


def leaves_a_tenant_bound(request):
    tls_tenant_manager.push_tenant_context(tenant_context_manager.get_by_id("a.test"))
    return bound()


async def leaves_a_tenant_bound_async(request):
    return leaves_a_tenant_bound(request)


urlpatterns += [path("leaves/", leaves_a_tenant_bound), path("leaves-async/", leaves_a_tenant_bound_async)]


@pytest.mark.parametrize("url", ["/leaves/", "/leaves-async/"])
def test_what_a_whitelisted_view_pushes_and_never_pops_binds_no_later_request(whitelist, ask, url):
    whitelist(
        "/leaves/", f"{HERE}.leaves_a_tenant_bound", f"{HERE}.leaves_a_tenant_bound_async", f"{HERE}.function_view"
    )
    for _ in range(2):
        assert ask(url, "nobody.test").content == b"a.test"
        assert ask("/function/", "nobody.test").content == b"unbound"
    assert context.stack.get() == ()


@pytest.mark.parametrize("name", ["request_started", "request_finished"])
def test_what_a_receiver_of_a_signal_pushes_binds_no_request(whitelist, name):
    def push(**kwargs):
        tls_tenant_manager.push_tenant_context(tenant_context_manager.get_by_id("a.test"))

    whitelist(f"{HERE}.function_view")
    signal, kept = getattr(signals, name), contextvars.copy_context()
    signal.connect(push)
    try:
        for _ in range(2):
            answer = kept.run(Client().get, "/function/", headers={"host": "nobody.test"})
            assert answer.content == b"unbound"
    finally:
        signal.disconnect(push)
