"""Tenant ids, and the connection aliases they yield."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenant_router.exceptions import InvalidTenantId
from tenant_router.identity import MAX_TENANT_ID, RULE, alias_for, alias_twin, candidates, check_tenant_id, is_tenant_id

SHORT = st.text("ab_", min_size=1, max_size=4)


@pytest.mark.parametrize("good", ["a", "7", "tenant-1.test.com", "tenant_1", "a--b", "a.b_c-d", "a" * MAX_TENANT_ID])
def test_ids(good: str) -> None:
    assert is_tenant_id(good)
    assert check_tenant_id(good) == good


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "A",
        "Acme.test.com",
        ".a",
        "a.",
        "-a",
        "a-",
        "_a",
        "a_",
        "a..b",
        "a b",
        "a/b",
        "a:b",
        "a\n",
        "\na",
        "a\x00",
        "é",
        "a\u0661b",
        "@meta",
        "a" * (MAX_TENANT_ID + 1),
        None,
        7,
        b"a",
        ["a"],
    ],
)
def test_refused(bad: object) -> None:
    assert not is_tenant_id(bad)
    with pytest.raises(InvalidTenantId) as caught:
        check_tenant_id(bad)
    assert str(caught.value).endswith(f" is no tenant id: {RULE}")


def test_refusal_names_the_id_in_a_bounded_message() -> None:
    with pytest.raises(InvalidTenantId, match=r"^'Acme' is no tenant id: lower-case letters and digits first and last"):
        check_tenant_id("Acme")
    with pytest.raises(InvalidTenantId) as caught:
        check_tenant_id("A" * 5_000)
    assert len(str(caught.value)) < 300


def test_the_rule_is_one_line() -> None:
    assert "\n" not in RULE
    assert str(MAX_TENANT_ID) in RULE


def test_candidates_are_found_by_the_whole_suffix() -> None:
    templates = ["default", "old_default"]
    assert list(candidates("acme_default", templates)) == [("acme", "default")]
    assert list(candidates("acme_old_default", templates)) == [("acme_old", "default"), ("acme", "old_default")]
    assert list(candidates("default", templates)) == []
    assert list(candidates("_default", templates)) == []
    assert list(candidates("acmedefault", templates)) == []


def test_ids_with_a_common_beginning_are_strangers() -> None:
    assert alias_twin("tenant_1", ["default", "a_default"], {"tenant_10", "tenant"}.__contains__) is None


def test_twins() -> None:
    templates = ["x", "a_x"]
    assert alias_twin("t_a", templates, {"t"}.__contains__) == "t"
    assert alias_twin("t", templates, {"t_a"}.__contains__) == "t_a"
    assert alias_twin("t", templates, {"t"}.__contains__) is None
    assert alias_twin("t_a", ["x", "y"], {"t"}.__contains__) is None


@given(one=SHORT, other=SHORT, templates=st.lists(SHORT, min_size=1, max_size=4, unique=True))
def test_twins_are_those_that_share_an_alias(one: str, other: str, templates: list[str]) -> None:
    aliases = [{alias_for(name, template) for template in templates} for name in (one, other)]
    share = one != other and bool(aliases[0] & aliases[1])
    assert alias_twin(one, templates, {other}.__contains__) == (other if share else None)
