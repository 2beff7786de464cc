"""``check --deploy``: what only the store can tell."""

import pytest
from django.core import checks
from django.core.management import call_command
from django.test import override_settings

from tenant_router.checks import check_deployment
from tenant_router.conf import conf
from tenant_router.config_store.base import Op
from tests.fixtures_orm import SQLITE


def found(**changed):
    with override_settings(**changed):
        conf.forget()
        try:
            messages = check_deployment()
        finally:
            conf.forget()
    assert all(message.hint for message in messages)
    return [message.id.removeprefix("tenant_router.") for message in messages]


@pytest.fixture
def reporting(project):
    """A project with a second alias that nobody has named as reserved."""
    databases = {name: {**SQLITE} for name in ("default", "reporting")}
    return project(databases)


def put(tenants, tenant_id, *aliases):
    orm = {alias: {"NAME": str(tenants.directory / f"{tenant_id}-{alias}.db")} for alias in aliases}
    tenants.put(tenant_id, {"orm_config": {"django_orm": orm}})


def test_a_database_of_no_tenant_is_e023(reporting):
    put(reporting, "a.test", "default")
    (message,) = check_deployment()
    assert message.id == "tenant_router.E023"
    assert message.msg.startswith("DATABASES['reporting'] is replicated for each tenant, and no tenant's record has it")
    assert "RESERVED_CONN_ALIASES" in message.hint
    put(reporting, "b.test", "default", "reporting")
    assert found() == []


def test_a_store_without_tenants_or_without_readable_ones_tells_nothing(reporting):
    assert found() == []
    reporting.commit(Op("a.test", "A", b"garbage"))
    assert found() == []


@pytest.mark.parametrize(
    ("hosts", "ids"),
    [([], ["E024"]), (["localhost"], ["E024"]), (["*"], []), ([".test"], []), (["b.test"], []), (["A.test"], [])],
    ids=str,
)
def test_hosts_that_refuse_every_tenant_are_e024(tenants, hosts, ids):
    tenants.put("a.test")
    tenants.put("b.test")
    assert found(ALLOWED_HOSTS=hosts) == ids


def test_hosts_are_not_asked_about_where_the_tenant_is_none_or_there_is_none(tenants):
    assert found(ALLOWED_HOSTS=[]) == []
    tenants.put("a.test")
    by_header = {"TENANT_ID_RESOLVER": "tenant_router.middleware.resolve_by_header"}
    assert found(ALLOWED_HOSTS=[], TENANT_ROUTER_MIDDLEWARE_SETTINGS=by_header) == []
    tenants.delete("a.test")
    assert found(ALLOWED_HOSTS=[]) == []


def test_a_store_that_does_not_answer_is_w025(tenants):
    tenants.runtime.store.close()
    assert found() == ["W025"]


def test_the_store_is_asked_with_deploy_only(tenants, monkeypatch):
    def asked():
        raise AssertionError("the store was asked")

    assert check_deployment in checks.registry.registry.deployment_checks
    monkeypatch.setattr(tenants.runtime.store, "head", asked)
    call_command("check")
    with pytest.raises(AssertionError, match="was asked"):
        call_command("check", "--deploy")
