"""What others may have written into the store: names that are no ids, records that this release refuses."""

import io
import logging

import pytest
from django.core.management import CommandError, call_command

from tenant_router.config_store import codec
from tenant_router.config_store.base import Op
from tenant_router.exceptions import TenantMisconfigured, TenantNotFound
from tenant_router.identity import is_tenant_id, no_tenant_ids
from tenant_router.managers import tenant_context_manager

BAD = ["Bad Id", "../x", "a..b", "x" * 254, "a\nb", "", "a.test\n", "@other", "ünder", "-a", "{tr:x}:idx", "\x1b[2Ja"]


@pytest.mark.parametrize("bad", BAD)
def test_one_name_that_is_no_id_is_found_among_many(bad):
    good = [f"t{number}.test" for number in range(50)]
    assert no_tenant_ids(good) == []
    assert no_tenant_ids([*good, bad, "z"]) == [bad]
    assert not is_tenant_id(bad)


def test_what_is_found_among_many_is_what_is_found_alone():
    names = ["a", "a-", "a.b", "a" * 253, "a" * 254, "a_b", ".a", "0", "a..b", "A"]
    for name in names:
        assert no_tenant_ids([name]) == ([] if is_tenant_id(name) else [name])
    assert no_tenant_ids(names) == [name for name in names if not is_tenant_id(name)]
    assert no_tenant_ids([]) == []


@pytest.fixture
def with_bad_ids(tenants):
    """A store in which somebody has written names that are no ids, between two tenants."""
    body = codec.encode("x", tenants.record("x"), tenants.runtime.serializer)
    tenants.put("a.test")
    tenants.commit(*(Op(name, "A", body) for name in BAD))
    tenants.arrived("b.test", tenants.put("b.test"))
    return tenants


def _check_tenants():
    assert sorted(tenant_context_manager.get_tenant_ids()) == ["a.test", "b.test"]
    assert sorted(context.id for context in tenant_context_manager.all()) == ["a.test", "b.test"]
    for name in BAD:
        assert not tenant_context_manager.contains(name)
        with pytest.raises(TenantNotFound):
            tenant_context_manager.get_by_id(name)


def test_a_bad_id_in_the_log_makes_no_tenant_and_halts_nothing(with_bad_ids):
    _check_tenants()
    with_bad_ids.arrived("b.test", with_bad_ids.put("b.test", with_bad_ids.record("moved")))
    assert "moved" in tenant_context_manager.get_by_id("b.test").parts["django_orm"]["default"].settings["NAME"]


def test_a_bad_id_in_the_index_makes_no_tenant_and_halts_nothing(with_bad_ids, fresh_runtime, caplog):
    store = with_bad_ids.runtime.store
    with_bad_ids.runtime.registry.index.clear()
    with_bad_ids.runtime.registry.prepared.clear()
    with caplog.at_level(logging.ERROR):
        with_bad_ids.runtime.reflector.synchronise()
    _check_tenants()
    readable = set(filter(None, BAD))  # a memory store does not list the empty one
    assert f"{len(readable)} names" in caplog.text
    assert readable <= set(store.index())  # nothing is deleted for it


def test_the_store_can_be_checked_before_an_upgrade(with_bad_ids):
    with_bad_ids.put(
        "c.test", {"orm_config": {"django_orm": {"default": {"NAME": "c", "OPTIONS": {"init_command": "x"}}}}}
    )
    with_bad_ids.put("d.test", {**with_bad_ids.record("d"), "cache_config": {"default": {"KEY_FUNCTION": "os.system"}}})
    with_bad_ids.put("e.test", with_bad_ids.record("x/../a.test"))
    with_bad_ids.commit(Op("f.test", "A", b"garbage"))
    out = io.StringIO()
    with pytest.raises(CommandError, match="refused as listed"):
        call_command("tenant_store", "check", stdout=out)
    lines = out.getvalue().splitlines()
    assert [line for line in lines if line.startswith("c.test\torm_config.django_orm.default.OPTIONS.init_command")]
    assert [line for line in lines if line.startswith("d.test\tcache_config.default.KEY_FUNCTION")]
    assert [line for line in lines if "e.test" in line and "names the database of tenant 'a.test'" in line]
    assert [line for line in lines if line.startswith("f.test\t")]
    assert [line for line in lines if line.startswith("../x\t") and "no tenant id" in line]
    assert not [line for line in lines if line.startswith("b.test")]
    assert all(line.replace("\t", " ").isprintable() for line in lines)


def test_a_good_store_passes(tenants):
    tenants.put("a.test")
    out = io.StringIO()
    call_command("tenant_store", "check", stdout=out)
    assert out.getvalue() == "no record is refused\n"


def test_a_refusal_is_brief_whatever_the_record(tenants, caplog):
    """150 kB of unknown keys: what is logged, told to a request, and kept."""
    large = {f"{number}{'x' * 100}": number for number in range(1_000)}
    record = {"orm_config": {"django_orm": {"default": {"NAME": "x", **large}}}, "cache_config": {"default": large}}
    tenants.arrived("a.test", tenants.put("a.test", record))
    for _ in range(3):
        with pytest.raises(TenantMisconfigured) as refused:
            tenant_context_manager.get_by_id("a.test")
        assert len(str(refused.value)) < 4_000
    assert len(caplog.text) < 20_000
