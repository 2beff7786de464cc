"""What the Redis backend reads of its keys, whatever stands there."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenant_router.config_store.backends import redis_wire as wire
from tenant_router.config_store.base import UNREADABLE, Lease, Stamp, pack, packed_state, stamp, tail_of, unpack

NAMES = st.sampled_from([b"a.test", b"b.test", b"c.test", b"a\nb", b"\n", b"", b"\xff.test", "ä".encode()])
VALUES = st.sampled_from(
    [
        b"7:A:0f:1700000000000:3:later=1",
        b"7:A:0f:1700000000000:3:LATER",
        b"1:A:ab",
        b"12:X:",
        b"3:P:0123",
        b"",
        b"\n",
        b"x",
        b"1:A:ab\n2:A:cd",
        b"1:A:ab\n",
        b"0" * 17,
    ]
)


@given(page=st.dictionaries(NAMES, VALUES))
def test_a_page_read_in_one_piece_is_a_page_read_entry_by_entry(page):
    assert wire.index_entries(page) == dict(wire._one_by_one(page))


def test_an_unreadable_entry_neither_hides_the_others_nor_makes_its_tenant_unknown():
    found = wire.index_entries({b"a.test": b"7:A:0f", b"b.test": b"nonsense"})
    assert found == {"a.test": "7:A:0f", "b.test": UNREADABLE}


def test_an_entry_says_what_was_packed():
    for parts in ((7, "A", "0f"), (8, "X", "")):
        assert (unpack(pack(*parts)), packed_state(pack(*parts))) == (parts, parts[1])


def test_an_entry_has_room_for_fields_of_later_releases():
    entry = pack(7, "A", "0f", ":1700000000000:3:later=1:more")
    assert (unpack(entry), stamp(entry), tail_of(entry)) == (
        (7, "A", "0f"),
        Stamp(1700000000000, 3),
        ":1700000000000:3:later=1:more",
    )
    assert [stamp(old) for old in ("7:A:0f", "7:A:0f:x:", UNREADABLE)] == [Stamp(0, 0)] * 3


@pytest.mark.parametrize(
    "entry",
    [b"5:A:abcd:X:", b"5:ZZ:ab", b"5::ab", b"5:a:X:b", b"-5:A:a", b"5:\n:ab", b"5:A:no-digest", b"5:A", b"\xff"],
)
def test_an_entry_of_the_log_that_is_none_is_skipped(entry):
    said = {b"t": b"a.test", b"c": b"c"}
    found = wire.events([(b"4-0", {**said, b"e": b"4:A:ab"}), (b"5-0", {**said, b"e": entry})])
    assert [event.rev for event in found] == [4]


@pytest.mark.parametrize("end", [b"inf", b"1e+18", b"1700000050000.5", b"9" * 400])
@pytest.mark.parametrize("said", [b"", b"x|y", b"9" * 5000 + b"|y", b"\xff"])
def test_a_lease_that_nobody_wrote_says_nothing_and_hides_no_other(end, said):
    now, good = 1_700_000_000_000, (b"1700000010000", b"20000|hello")
    found = wire.leases(now, [b"bad", end, b"good", good[0]], [b"bad", said, b"good", good[1]])
    assert (found["bad"], found["good"]) == (Lease("", 0.0), Lease("hello", 10.0))


def test_the_unreadable_entries_of_a_log_are_told_in_one_line(caplog):
    assert wire.events([(b"%d-0" % number, {b"x": b"y"}) for number in range(1, 500)]) == []
    assert [record.getMessage() for record in caplog.records] == [
        "499 entries of the log are unreadable and were skipped, such as b'1-0'"
    ]
