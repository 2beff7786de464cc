"""What probes, load balancers and Prometheus are told of a process."""

import json
import sys
import threading

import pytest
from django.conf import settings
from django.test import AsyncRequestFactory, RequestFactory, override_settings

from tenant_router import conf
from tenant_router.conf.problems import problems
from tenant_router.exceptions import StoreUnavailable
from tenant_router.middleware import TenantContextMiddleware
from tenant_router.requests import metrics
from tests.integration.test_reflector import PATIENT, store_options
from tests.tenants import Tenants, eventually

TOKEN = "canary-token"
PREFIX = {"HEALTH_PREFIX": "/health/"}


@pytest.fixture
def site(fresh_runtime, tmp_path):
    """A function that makes the middleware of a server with the tenant a.test, and asks it."""

    def make(*, use_async=False, idle=PATIENT, **options):
        own = {**settings.TENANT_ROUTER_MIDDLEWARE_SETTINGS, **PREFIX, **options}
        with override_settings(TENANT_ROUTER_MIDDLEWARE_SETTINGS=own), store_options(IDLE=idle):
            made = fresh_runtime()
            tenants = Tenants(made, tmp_path)
            tenants.put("a.test", migrate=False)
            if use_async:

                async def nothing(request):
                    raise AssertionError("the application was asked")

            else:

                def nothing(request):
                    raise AssertionError("the application was asked")

            return tenants, TenantContextMiddleware(nothing)

    return make


def ask(middleware, path, **headers):
    """Status and JSON of an answer; a probe names no host that any tenant has."""
    with override_settings(ALLOWED_HOSTS=["a.test"]):
        answer = middleware(RequestFactory().get(path, headers={"host": "10.1.2.3", **headers}))
    return answer.status_code, json.loads(answer.content) if answer["Content-Type"] == "application/json" else None


def bearer(token):
    return {"authorization": f"Bearer {token}"}


def test_a_server_that_follows_its_store_is_live_and_ready(site):
    tenants, middleware = site()
    eventually(lambda: tenants.runtime.reflector.ready)
    assert ask(middleware, "/health/live") == (200, {"status": "live", "state": "READY"})
    assert ask(middleware, "/health/ready") == (200, {"status": "ready", "state": "READY"})


async def test_the_same_of_an_asynchronous_server(site):
    tenants, middleware = site(use_async=True)
    eventually(lambda: tenants.runtime.reflector.ready)
    answer = await middleware(AsyncRequestFactory().get("/health/ready"))
    assert (answer.status_code, json.loads(answer.content)["state"]) == (200, "READY")


def test_the_loss_of_the_store_takes_no_server_out_of_its_load_balancer(site):
    tenants, middleware = site(idle=0.3)
    asked = threading.Event()

    def fail(*arguments, **options):
        asked.set()
        raise StoreUnavailable("away")

    tenants.runtime.store.changes = fail
    assert asked.wait(20)  # what was asked before is answered: there is no contact any more
    eventually(lambda: tenants.runtime.reflector.state == "STALE")
    assert ask(middleware, "/health/ready") == (200, {"status": "ready", "state": "STALE"})


def test_a_server_that_has_read_nothing_is_not_ready(fresh_runtime):
    with (
        store_options(BOOT="lazy", IDLE=0.3),
        override_settings(TENANT_ROUTER_MIDDLEWARE_SETTINGS=PREFIX),
    ):
        fresh_runtime()
        middleware = TenantContextMiddleware(lambda request: None)
        assert ask(middleware, "/health/ready") == (503, {"status": "not ready", "state": "STARTING"})
        assert ask(middleware, "/health/live")[0] == 200


@pytest.mark.parametrize("headers", [{}, bearer("guessed"), {"authorization": TOKEN}, bearer("ü")])
def test_a_tenants_databases_are_nobodys_business(site, headers):
    _, middleware = site(HEALTH_TOKEN=TOKEN)
    assert ask(middleware, "/health/tenant/a.test", **headers) == (404, None)


def test_without_a_token_in_the_settings_nobody_is_trusted(site):
    _, middleware = site()
    for headers in ({}, bearer(""), bearer("None")):
        assert ask(middleware, "/health/tenant/a.test", **headers) == (404, None)


def test_whoever_has_the_token_may_check_a_tenant(site):
    tenants, middleware = site(HEALTH_TOKEN=TOKEN)
    assert ask(middleware, "/health/tenant/a.test", **bearer(TOKEN)) == (200, {"django_orm.default": "ok"})
    secret = {"NAME": "/nowhere/canary.db"}
    tenants.arrived("b.test", tenants.put("b.test", {"orm_config": {"django_orm": {"default": secret}}}))
    found = ask(middleware, "/health/tenant/b.test", **bearer(TOKEN))
    assert found == (503, {"django_orm.default": "OperationalError"})
    assert ask(middleware, "/health/tenant/nobody.test", **bearer(TOKEN)) == (404, {"error": "TenantNotFound"})


def test_checks_are_made_one_at_a_time(site):
    tenants, middleware = site(HEALTH_TOKEN=TOKEN)
    began, goes_on, answers = threading.Event(), threading.Event(), []

    def slow(alias):
        began.set()
        goes_on.wait(60)

    tenants.runtime.orms["django_orm"].check_health = slow
    first = threading.Thread(target=lambda: answers.append(ask(middleware, "/health/tenant/a.test", **bearer(TOKEN))))
    first.start()
    assert began.wait(20)
    assert ask(middleware, "/health/tenant/a.test", **bearer(TOKEN))[0] == 429
    goes_on.set()
    first.join()
    assert answers[0][0] == 200
    assert ask(middleware, "/health/tenant/a.test", **bearer(TOKEN))[0] == 200


def test_other_paths_below_the_prefix_are_not_found_and_others_are_the_applications(site):
    _, middleware = site()
    assert ask(middleware, "/health/secrets") == (404, None)
    with pytest.raises(AssertionError, match="the application was asked"):
        middleware(RequestFactory().get("/healthy", headers={"host": "a.test"}))


@pytest.mark.parametrize("prefix", ["health/", "/health", "/"])
def test_a_prefix_that_would_hide_the_application_is_refused(prefix):
    with override_settings(TENANT_ROUTER_MIDDLEWARE_SETTINGS={"HEALTH_PREFIX": prefix}):
        assert [problem.where for problem in problems()] == [f"{conf.MIDDLEWARE}['HEALTH_PREFIX']"]


# --- metrics ---


def sample(name, **labels):
    from prometheus_client import REGISTRY

    return REGISTRY.get_sample_value(f"tenant_router_{name}", labels)


def test_metrics_are_there_by_themselves(site):
    tenants, _ = site()
    eventually(lambda: tenants.runtime.reflector.ready)
    applied = sample("changes_applied_total")
    tenants.arrived("b.test", tenants.put("b.test", state="S"))
    eventually(lambda: sample("changes_applied_total") == applied + 1)
    eventually(lambda: sample("applied_revision") == 2)  # which is said when all that was read at once is applied
    assert sample("ready") == 1
    assert sample("since_contact_seconds") < 3 * PATIENT
    assert [sample("tenants", state=state) for state in ("active", "suspended", "deleted")] == [1, 1, None]
    assert sample("refused_records") == 0
    assert sample("synchronisations_total") == 1
    tenants.put("bad.test", {"orm_config": {"django_orm": {"default": {"NAME": 7}}}})
    eventually(lambda: sample("refused_records") == 1)


def test_metrics_name_no_tenant(site):
    from prometheus_client import generate_latest

    site()
    assert b"a.test" not in generate_latest()


def test_without_the_client_there_are_none(monkeypatch):
    monkeypatch.setattr(metrics, "_registered", [])
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    assert metrics.register() is False


def test_a_database_that_its_manager_cannot_ask_is_no_fault(site):
    tenants, middleware = site(HEALTH_TOKEN=TOKEN)

    def check_health(alias):
        raise NotImplementedError

    tenants.runtime.orms["django_orm"].check_health = check_health
    assert ask(middleware, "/health/tenant/a.test", **bearer(TOKEN)) == (200, {"django_orm.default": "not checked"})
