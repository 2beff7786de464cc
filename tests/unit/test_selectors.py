"""Which tenants a selector means, and what is said of one that means nobody."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenant_router.config_store.base import DELETED, META_ID, STATE_NAMES
from tenant_router.exceptions import TenantNotFound
from tenant_router.fleet.selectors import EXISTING, SelectionError, Selector, Tenants, UnknownTenants, read, states_in

STATES = {
    "acme.example.com": "A",
    "acme-2.test": "A",
    "acme-3.test": "S",
    "globex.example.com": "A",
    "globex.example.org": "A",
    "tenant_1": "A",
    "tenant_10": "A",
    "new.test": "P",
    "leaving.test": "D",
    "gone.test": "X",
    "odd.test": "?",
}
LABELS = {"acme.example.com": "pro", "acme-3.test": "pro", "tenant_1": "pro"}


def labelled(tenant_ids, label):
    return (one for one in tenant_ids if LABELS.get(one) == label)


def select(*words, exclude=(), typed=False, meant="A", stdin=None):
    tenants = Tenants(STATES, meant, labelled)
    return tenants.select(read(words, stdin=stdin, typed=typed), read(exclude, stdin=stdin, typed=typed))


def chosen(*words, **options):
    return select(*words, **options).tenant_ids


ACTIVE = ["acme-2.test", "acme.example.com", "globex.example.com", "globex.example.org", "tenant_1", "tenant_10"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["tenant_1"], ["tenant_1"]),
        (["tenant_10", "tenant_1", "tenant_10"], ["tenant_10", "tenant_1"]),
        (["acme-3.test"], ["acme-3.test"]),  # in whatever state
        (["odd.test", "leaving.test", "new.test"], ["odd.test", "leaving.test", "new.test"]),
        (["acme*"], ["acme-2.test", "acme.example.com"]),
        (["acme-?.test"], ["acme-2.test"]),
        (["globex.example.[co]*"], ["globex.example.com", "globex.example.org"]),
        (["tenant_1?"], ["tenant_10"]),
        ([":all:"], ACTIVE),
        ([":state=suspended"], ["acme-3.test"]),
        ([":state=provisioning", ":state=draining"], ["new.test", "leaving.test"]),
        ([":label=pro"], ["acme.example.com", "tenant_1"]),
        (["tenant_1", ":all:"], ["tenant_1", *[one for one in ACTIVE if one != "tenant_1"]]),
    ],
)
def test_whom_selectors_mean(words, expected):
    assert chosen(*words) == expected


def test_who_is_excluded():
    assert chosen(":all:", exclude=["acme*", "tenant_1"]) == ["globex.example.com", "globex.example.org", "tenant_10"]
    assert chosen("acme-3.test", "tenant_1", exclude=[":state=suspended"]) == ["tenant_1"]
    assert chosen("acme-3.test", "tenant_1", exclude=["acme-*"]) == ["tenant_1"]  # in whatever state
    assert chosen(":all:", exclude=["nobody-*"]) == ACTIVE


def test_patterns_mean_the_tenants_that_a_command_is_for():
    assert chosen("acme*", meant="AS") == ["acme-2.test", "acme-3.test", "acme.example.com"]
    assert chosen(":label=pro", meant="S") == ["acme-3.test"]


def test_who_means_nobody_beside_others_is_told():
    assert select("tenant_1", "no-*", ":label=none", exclude=["dmeo-*", "odd*"]) == (
        ["tenant_1"],
        ["'no-*' means nobody", "':label=none' means nobody", "'dmeo-*' means nobody"],
    )


def test_a_glob_says_whom_it_leaves_out():
    assert select("acme*").remarks == ["'acme*' leaves out 1 that is suspended"]
    assert select("*").remarks == [
        "'*' leaves out 1 that is unreadable",
        "'*' leaves out 1 that is draining",
        "'*' leaves out 1 that is provisioning",
        "'*' leaves out 1 that is suspended",
    ]


# --- leading labels ---


def test_a_person_may_write_whole_leading_labels():
    assert chosen("acme", typed=True) == ["acme.example.com"]
    assert chosen("globex.example.com", typed=True) == ["globex.example.com"]
    assert chosen(":all:", exclude=["acme"], typed=True) == [one for one in ACTIVE if one != "acme.example.com"]


@pytest.mark.parametrize("word", ["tenant", "acm", "acme.exam", "acme-", "globex.example.co", "gone"])
def test_a_part_of_a_label_is_nobodys(word):
    with pytest.raises(UnknownTenants, match=r"is known$"):
        chosen(word, typed=True)


def test_an_ambiguous_one_names_its_candidates():
    with pytest.raises(SelectionError, match=r"^'globex' may be globex.example.com, globex.example.org: give the "):
        chosen("globex", typed=True)


def test_programs_write_whole_ids(tmp_path):
    file = tmp_path / "ids"
    file.write_text("acme\n")
    for words, typed in ((["acme"], False), ([f"@{file}"], True)):
        with pytest.raises(UnknownTenants, match=r"no tenant 'acme'.* \(did you mean acme.example.com\?\) is known"):
            chosen(*words, typed=typed)


# --- files and standard input ---


def test_lists(tmp_path):
    file = tmp_path / "ids"
    file.write_bytes(b"\xef\xbb\xbf# of today\n\n  tenant_1  # the first\r\nacme-*\n")
    assert chosen(f"@{file}") == ["tenant_1", "acme-2.test"]
    assert chosen("-", stdin=io.StringIO("tenant_10\n:state=suspended")) == ["tenant_10", "acme-3.test"]
    assert chosen(":all:", exclude=[f"@{file}"]) == [one for one in ACTIVE if one not in ("tenant_1", "acme-2.test")]


def test_lists_that_cannot_be_read(tmp_path):
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "nested").write_text("tenant_1\n@other\n")
    (tmp_path / "empty").write_text("# nobody\n")
    for name, said in (
        ("missing", "No such file"),
        ("", "Is a directory"),
        ("binary", "no text in UTF-8"),
        ("nested", "line 2 of .*'@other' leads to another list"),
        ("empty", "the list is empty"),
        ("a\0b", "cannot be read"),
    ):
        with pytest.raises(SelectionError, match=said):
            chosen(f"@{tmp_path}/{name}")
    for stdin in (None, io.TextIOWrapper(io.BytesIO(b"\xff"), "utf-8")):
        with pytest.raises(SelectionError, match="standard input"):
            chosen("-", stdin=stdin)


def test_a_wrong_line_of_a_list_says_where_it_stands(tmp_path):
    file = tmp_path / "ids"
    file.write_text("tenant_1\ntenant_2\n")
    with pytest.raises(UnknownTenants, match=rf"^no tenant 'tenant_2' \(line 2 of {file}\) \(did you mean tenant_"):
        chosen(f"@{file}")


# --- what means nobody ---


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["acme.exmaple.com"], r"no tenant 'acme.exmaple.com' \(did you mean acme.example.com\?\) is known"),
        (["ACME.example.com"], r"did you mean acme.example.com\?"),
        (["qqqq", "zzzz"], "no tenants 'qqqq', 'zzzz' are known"),
        ([f"x{number}y{number}z" for number in range(9)], "and 4 more are known"),
        (["gone.test"], "tenant 'gone.test' was deleted"),
        (["\x1b[2J"], r"'\\x1b\[2J'"),
        ([META_ID], "'@meta'"),
        (["no-*"], r"no tenant is selected by 'no-\*'"),
        (["acme-3*"], "no tenant is selected by 'acme-3\\*'; 'acme-3\\*' leaves out 1 that is suspended"),
        (["gone*"], "no tenant is selected"),
        ([":label=none"], "no tenant is selected by ':label=none'"),
        ([":label="], "is no selector"),
        ([":al:"], "':al:' is no selector: did you mean ':all:'\\?"),
        ([":all"], "did you mean ':all:'"),
        ([":"], "there are :all:, :state=, :label="),
        ([":state=deleted"], "':state=deleted': no tenant can be in that state; there are active, provisioning"),
        ([":state="], "there are active"),
        ([""], "an empty selector means nobody"),
        ([" "], "an empty selector means nobody"),
        ([], "the list is empty"),
    ],
)
def test_what_means_nobody_is_refused(words, said):
    with pytest.raises(SelectionError, match=said):
        chosen(*words)


def test_an_exclusion_that_is_misspelt_is_refused():
    with pytest.raises(UnknownTenants, match=r"no tenant 'tenant_2' \(did you mean tenant_1"):
        chosen(":all:", exclude=["tenant_2"])


def test_everybody_excluded():
    with pytest.raises(SelectionError, match="all that were are excluded"):
        chosen("tenant_1", exclude=["tenant_*"])


def test_an_unknown_one_is_a_tenant_that_is_not_found():
    with pytest.raises(TenantNotFound):
        chosen("nobody.at.all")


# --- any store ---

LABEL = st.text("ab1-", min_size=1, max_size=3).filter(lambda text: text[0] != "-" and text[-1] != "-")
IDS = st.lists(LABEL, min_size=1, max_size=3).map(".".join)
WORDS = st.one_of(IDS, IDS.map(lambda one: f"{one[0]}*"), st.sampled_from([":all:", ":state=suspended", "*"]))


@given(
    st.dictionaries(IDS, st.sampled_from([*STATE_NAMES])), st.lists(WORDS, min_size=1), st.lists(WORDS), st.booleans()
)
def test_a_selection_can_be_repeated_by_its_ids(states, words, excluded, typed):
    tenants = Tenants(states, "A", labelled)
    try:
        found = tenants.select(read(words, stdin=None, typed=typed), read(excluded, stdin=None, typed=typed)).tenant_ids
    except SelectionError:
        return
    assert found
    assert len(set(found)) == len(found)
    assert all(states[one] != DELETED for one in found)
    assert tenants.select([Selector(one) for one in found]).tenant_ids == found
    for one in found:
        exact, patterns = one in words, [word for word in words if "*" in word or word.startswith(":")]
        short = [word for word in words if one.split(".")[: word.count(".") + 1] == word.split(".")]
        assert exact or patterns or (typed and short)


def test_many_tenants():
    states = {f"t{number}.test": "A" for number in range(100_000)} | {"t7.test": "S"}

    def never(tenant_ids, label):
        raise AssertionError("no record is read for this")

    tenants = Tenants(states, "A", never)
    listed = [Selector(f"t{number}.test") for number in range(100_000)]
    assert len(tenants.select([Selector(":all:")], listed[10:]).tenant_ids) == 9
    assert len(tenants.select(listed).tenant_ids) == 100_000
    assert tenants.select([Selector("t9999?.test")]).tenant_ids == [f"t9999{digit}.test" for digit in range(10)]


def test_states_of_an_index():
    assert states_in({"a": "3:A:x:1:2", "b": "0:?:", META_ID: "1:A:y"}) == {"a": "A", "b": "?"}
    assert set(EXISTING) == set(STATE_NAMES) - {DELETED}
