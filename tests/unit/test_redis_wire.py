"""What the Redis backend reads of its keys, whatever stands there."""

from hypothesis import given
from hypothesis import strategies as st

from tenant_router.config_store.backends import redis_wire as wire
from tenant_router.config_store.base import pack, packed_state, unpack

NAMES = st.sampled_from([b"a.test", b"b.test", b"c.test", b"a\nb", b"\n", b"", b"\xff.test", "ä".encode()])
VALUES = st.sampled_from(
    [b"1:A:ab", b"12:X:", b"3:P:0123", b"", b"\n", b"x", b"1:A:ab\n2:A:cd", b"1:A:ab\n", b"0" * 17]
)


@given(page=st.dictionaries(NAMES, VALUES))
def test_a_page_read_in_one_piece_is_a_page_read_entry_by_entry(page):
    assert wire.index_entries(page) == dict(wire._readable(page))


def test_an_unreadable_entry_does_not_hide_the_others(caplog):
    assert wire.index_entries({b"a.test": b"7:A:0f", b"b.test": b"nonsense"}) == {"a.test": "7:A:0f"}
    assert "'b.test' is unreadable" in caplog.text


def test_an_entry_says_what_was_packed():
    for parts in ((7, "A", "0f"), (8, "X", "")):
        assert (unpack(pack(*parts)), packed_state(pack(*parts))) == (parts, parts[1])
