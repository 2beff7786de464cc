import json
import pickle
import pickletools
import resource
import struct
import time
from collections import OrderedDict
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tenant_router.config_store.serializers.pickle as module
from tenant_router.config_store.serializers.base import MAX_DEPTH, MAX_NODES, MAX_SIZE, Serializer
from tenant_router.config_store.serializers.json import JSONSerializer
from tenant_router.config_store.serializers.pickle import PickleSerializer
from tenant_router.exceptions import SerializerError

SERIALIZERS: list[Serializer] = [JSONSerializer(), PickleSerializer()]
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()


def holding(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return inner | st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4)


# Three levels, written out: st.recursive() takes ten times as long, mostly for values that it throws away again.
RECORDS = st.dictionaries(st.text(), holding(holding(SCALARS)), max_size=5)


def nested(depth: int) -> dict[str, Any]:
    record: dict[str, Any] = {}
    for _ in range(depth - 1):
        record = {"x": record}
    return record


def shared(levels: int) -> dict[str, Any]:
    value: list[Any] = ["x"]
    for _ in range(levels):
        value = [value, value]
    return {"bomb": value}


def cyclic() -> dict[str, Any]:
    record: dict[str, Any] = {}
    record["self"] = record
    return record


UNWRITABLE: dict[str, Any] = {
    "list": [],
    "text": "x",
    "none": None,
    "int key": {1: "x"},
    "none key": {None: 1},
    "inner int key": {"x": {1: 2}},
    "set": {"x": {1, 2}},
    "object": {"x": object()},
    "complex": {"x": 1j},
    "subclass": {"x": OrderedDict()},
    "function": {"x": print},
    "cycle": cyclic(),
    "deep": nested(MAX_DEPTH + 1),
    "shared": shared(40),
    "many": {"x": [0] * (MAX_NODES + 1)},
    "many in all": {"x": [0] * (MAX_NODES * 2 // 3), "y": [[0] * (MAX_NODES // 2)]},
    "large": {"x": "s" * MAX_SIZE},
}


@pytest.mark.parametrize("serializer", SERIALIZERS, ids=lambda serializer: serializer.name)
class TestEverySerializer:
    @settings(max_examples=40, deadline=None)
    @given(record=RECORDS)
    def test_a_record_comes_back_as_it_was(self, serializer: Serializer, record: dict[str, Any]) -> None:
        assert serializer.loads(serializer.dumps(record)) == record

    @settings(max_examples=40, deadline=None)
    @given(data=st.binary(max_size=300))
    def test_garbage_is_an_error_of_ours(self, serializer: Serializer, data: bytes) -> None:
        with pytest.raises(SerializerError):
            serializer.loads(b"\x80" + data + b"?")

    @settings(max_examples=40, deadline=None)
    @given(record=RECORDS, cut=st.integers(min_value=1, max_value=20))
    def test_a_truncated_record_is_refused(self, serializer: Serializer, record: dict[str, Any], cut: int) -> None:
        data = serializer.dumps(record)
        with pytest.raises(SerializerError):
            serializer.loads(data[:-cut])

    @settings(max_examples=40, deadline=None)
    @given(record=RECORDS, other=RECORDS)
    def test_it_tells_whose_bytes_they_are(
        self, serializer: Serializer, record: dict[str, Any], other: dict[str, Any]
    ) -> None:
        data = serializer.dumps(record)
        assert serializer.holds(data, record)
        assert serializer.holds(data, other) == (record == other)
        assert not serializer.holds(data[:-1], record)

    @pytest.mark.parametrize("record", UNWRITABLE.values(), ids=UNWRITABLE)
    def test_what_could_not_be_read_is_not_written(self, serializer: Serializer, record: Any) -> None:
        with pytest.raises(SerializerError):
            serializer.dumps(record)

    def test_the_limits_are_within_reach(self, serializer: Serializer) -> None:
        for record in (nested(MAX_DEPTH), shared(10), {"x": [0] * (MAX_NODES - 1)}, {"x": "s" * (MAX_SIZE - 100)}):
            assert serializer.loads(serializer.dumps(record)) == record

    def test_a_size_can_be_chosen(self, serializer: Serializer) -> None:
        small = type(serializer)(max_size=100)  # type: ignore[call-arg]
        assert small.loads(small.dumps({"x": "y"})) == {"x": "y"}
        with pytest.raises(SerializerError, match="100"):
            small.dumps({"x": "y" * 100})
        with pytest.raises(SerializerError, match="100"):
            small.loads(serializer.dumps({"x": "y" * 100}))

    def test_errors_carry_no_value(self, serializer: Serializer) -> None:
        data = serializer.dumps({"PASSWORD": "canary", "x": "canary"})
        for broken in (data[:-2], data.replace(b"canary", b"canar\xff"), data + data, b'{"canary": NaN}'):
            with pytest.raises(SerializerError) as caught:
                serializer.loads(broken)
            assert "canar" not in str(caught.value)
            assert caught.value.__suppress_context__ or caught.value.__context__ is None

    def test_reading_takes_no_more_memory_than_a_record_may(self, serializer: Serializer) -> None:
        """The largest that is accepted, and what is refused at the last byte."""
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        began = time.process_time()
        for record in ({"x": [[]] * (MAX_NODES // 2)}, {"x": [{}] * 60_000}, {"x": "s" * (MAX_SIZE - 100)}):
            data = serializer.dumps(record)
            serializer.loads(data)
            with pytest.raises(SerializerError):
                serializer.loads(data[:-1])
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kilobytes
        assert time.process_time() - began < 20


JSON_PARTS = ["{", "}", "[", "]", ":", ",", '"a"', '"b"', '""', "1", "-1", "1e9", "1e999", "NaN", "null", "true", " ",
              '"\\ud800"', '"\\u0000"', "9" * 400, '{"a":1}', '{"a":', '[1,', '"a":']  # fmt: skip


class TestJSON:
    @settings(max_examples=200, deadline=None)
    @given(parts=st.lists(st.sampled_from(JSON_PARTS), max_size=30))
    def test_any_row_of_words_is_read_as_python_does_or_refused(self, parts: list[str]) -> None:
        text = "{" + "".join(parts) + "}"
        began = time.process_time()
        try:
            read = JSONSerializer().loads(text.encode("utf-8"))
        except SerializerError:
            return
        finally:
            assert time.process_time() - began < 5
        assert read == json.loads(text)

    @pytest.mark.parametrize("number", ["9" * 4_301, "9" * 250_000, "-" + "9" * 250_000], ids=len)
    def test_a_long_number_is_refused_at_once(self, number: str) -> None:
        began = time.process_time()
        with pytest.raises(SerializerError):
            JSONSerializer().loads(b'{"x":' + number.encode() + b"}")
        assert time.process_time() - began < 0.5

    def test_equal_records_have_equal_bytes(self) -> None:
        first, second = {"b": 1, "a": {"d": "ä", "c": [1.5, None]}}, {"a": {"c": [1.5, None], "d": "ä"}, "b": 1}
        assert JSONSerializer().dumps(first) == JSONSerializer().dumps(second)
        assert JSONSerializer().dumps(first) == b'{"a":{"c":[1.5,null],"d":"\\u00e4"},"b":1}'

    def test_tuples_become_lists(self) -> None:
        assert JSONSerializer().loads(JSONSerializer().dumps({"x": (1, 2)})) == {"x": [1, 2]}

    @pytest.mark.parametrize(
        "value", [float("nan"), float("inf"), b"bytes", 10**5000], ids=["nan", "inf", "bytes", "10^5000"]
    )
    def test_what_json_cannot_say_is_refused(self, value: Any) -> None:
        with pytest.raises(SerializerError):
            JSONSerializer().dumps({"x": value})

    @pytest.mark.parametrize(
        "data",
        [b'{"x":NaN}', b'{"x":-Infinity}', b'{"x":1e999}', b'{"x":1,"x":2}', b'{"x":{"y":1,"y":1}}', b"[]", b"1",
         b'{"x":1} ,', b"", b"\xef\xbb\xbf{}", '{"x":1}'.encode("utf-16"), b'{"x":' + b"9" * 5000 + b"}",
         b'{"x":' * 100_000, b"[" * 200_000],
        ids=lambda value: repr(value)[:20],
    )  # fmt: skip
    def test_what_json_should_not_say_is_refused(self, data: bytes) -> None:
        with pytest.raises(SerializerError):
            JSONSerializer().loads(data)


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("code ran",)


def with_memo_index(index: int) -> bytes:
    return b"\x80\x03}r" + struct.pack("<I", index) + b"."


HOSTILE = {
    "reduce": pickle.dumps({"x": Evil()}, protocol=4),
    "global": b"\x80\x03}X\x01\x00\x00\x00xcos\nsystem\ns.",
    "stack_global": b"\x80\x04}\x8c\x01x\x8c\x02os\x8c\x06system\x93s.",
    "inst": b"\x80\x03(X\x02\x00\x00\x00idios\nsystem\n.",
    "obj": b"\x80\x03(cos\nsystem\nX\x02\x00\x00\x00ido.",
    "newobj": pickle.dumps({"x": OrderedDict()}, protocol=4),
    "ext1": b"\x80\x03}X\x01\x00\x00\x00x\x82\x01s.",
    "persid": b"\x80\x03}X\x01\x00\x00\x00xPid\ns.",
    "binpersid": b"\x80\x03}X\x01\x00\x00\x00xX\x01\x00\x00\x00pQs.",
    "build": b"\x80\x03}}b.",
    "long4": b"\x80\x03}X\x01\x00\x00\x00x\x8b\x01\x00\x00\x00\x05s.",
    "bytearray8": pickle.dumps({"x": bytearray(b"x")}, protocol=5),
    "set": pickle.dumps({"x": {1}}, protocol=4),
    "memo bomb": with_memo_index(2**28),
    "memo text": b"\x80\x03}p268435456\n.",
    "protocol 2": pickle.dumps({}, protocol=2),
    "protocol 0": pickle.dumps({}, protocol=0),
    "protocol 9": b"\x80\x09}.",
    "second protocol": b"\x80\x03\x80\x03}.",
    "trailing bytes": pickle.dumps({}, protocol=4) + b"x",
    "two pickles": pickle.dumps({}, protocol=4) * 2,
    "unhashable key": b"\x80\x03}]K\x01s.",
    "empty stack": b"\x80\x03s.",
    "no value": b"\x80\x03.",
    "memo miss": b"\x80\x03}h\x05.",
    "billion laughs": pickle.dumps(shared(60), protocol=4),
    "cycle": pickle.dumps(cyclic(), protocol=4),
    "deep": b"\x80\x03" + b"]" * 100_000 + b"a" * 99_999 + b".",
    "many opcodes": b"\x80\x03}" + b"N0" * 110_000 + b".",
    "no dict": pickle.dumps([1], protocol=4),
    "list as key holder": b"\x80\x03]K\x00K\x01s.",
    "int key": pickle.dumps({1: 2}, protocol=4),
    "bytes key": pickle.dumps({b"x": 2}, protocol=4),
    "int key alone": b"\x80\x03}K\x01Ns.",
    "remembered int key": b"\x80\x03}K\x01q\x00Nsh\x00Ns.",
    "key of shared tuples": b"\x80\x04})\x94" + b"".join(b"h%c\x86\x94" % n for n in range(31)) + b"Ns.",
    "key of deep tuples": b"\x80\x04})" + b"\x85" * 190_000 + b"Ns.",
    "keys of one hash": b"\x80\x03}(" + b"".join(b"\x8a\x0a" + (n * (2**61 - 1)).to_bytes(10, "little") + b"N"
                                                for n in range(15_000)) + b"u.",
}  # fmt: skip


def same(one: Any, other: Any) -> bool:
    """Equal, NaN included."""
    return repr(one) == repr(other)


# Opcodes of plain data with their arguments: enough of each for any row of them to make sense now and then.
PARTS = [
    b"}", b"]", b")", b"(", b"N", b"\x88", b"K\x01", b"M\x00\x01", b"J\xff\xff\xff\xff", b"\x8a\x01\x05", b"C\x01x",
    b"\x8c\x01a", b"\x8c\x01b", b"\x8c\x00", b"X\x01\x00\x00\x00c", b"\x8c\x02\xff\xff", b"G" + b"\x7f\xf8" + b"\0" * 6,
    b"s", b"u", b"a", b"e", b"t", b"\x85", b"\x86", b"\x87", b"\x94", b"q\x00", b"q\x01", b"h\x00", b"h\x01", b"h\x02",
    b"}\x94", b"]\x94", b"\x8c\x01k\x94", b"\x95" + b"\0" * 8, b"j\x00\x00\x00\x00", b"\x8c\x01a\x8c\x01bs",
    b"(\x8c\x01a\x8c\x01b\x8c\x01cNu", b"(NNe", b"Na",
]  # fmt: skip


class TestPickle:
    @pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
    def test_a_hostile_pickle_is_refused_at_once(self, data: bytes, capsys: pytest.CaptureFixture[str]) -> None:
        began = time.process_time()
        with pytest.raises(SerializerError):
            PickleSerializer().loads(data)
        assert time.process_time() - began < 1  # a bomb that went off would take minutes, or all memory
        assert capsys.readouterr().out == ""

    def test_the_sizes_of_arguments_are_pythons(self) -> None:
        counted = {pickletools.TAKEN_FROM_ARGUMENT1: 1, pickletools.TAKEN_FROM_ARGUMENT4U: 4}
        for table in (module._SIZES, module._COUNTS, module._MEMO_WRITES):
            for opcode, size in table.items():
                argument = pickletools.code2op[chr(opcode)].arg
                known = argument.n if argument else 0
                assert size == counted.get(known, known), pickletools.code2op[chr(opcode)].name
                assert (table is module._COUNTS) == (known in counted)

    @settings(max_examples=40, deadline=None)
    @given(record=RECORDS, position=st.integers(min_value=0), byte=st.integers(min_value=0, max_value=255))
    def test_it_reads_opcodes_as_python_does(self, record: dict[str, Any], position: int, byte: int) -> None:
        data = bytearray(pickle.dumps(record, protocol=4))
        data[position % len(data)] = byte
        try:
            PickleSerializer().loads(bytes(data))
        except SerializerError:
            return
        read = list(pickletools.genops(bytes(data)))  # raises where its reading of the bytes differs
        assert (read[-1][0].name, read[-1][2]) == ("STOP", len(data) - 1)

    @settings(max_examples=300, deadline=None)
    @given(parts=st.lists(st.sampled_from(PARTS), max_size=60))
    def test_any_row_of_opcodes_is_read_as_python_does_or_refused(self, parts: list[bytes]) -> None:
        data = b"\x80\x04" + b"".join(parts) + b"."
        began = time.process_time()
        try:
            read = PickleSerializer().loads(data)
        except SerializerError:
            return
        finally:
            assert time.process_time() - began < 5
        assert same(read, pickle.loads(data))

    def test_what_is_referred_to_again_is_read(self) -> None:
        for protocol in (3, 4, 5):
            text, inner = "".join(["sha", "red"]), {"k": 1}
            record = {text: [text, inner], "again": {text: inner}}
            assert PickleSerializer().loads(pickle.dumps(record, protocol=protocol)) == record

    def test_a_memo_bomb_allocates_nothing(self) -> None:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for index in (2**20, 2**24, 2**28, 2**32 - 1):
            with pytest.raises(SerializerError, match="memo"):
                PickleSerializer().loads(with_memo_index(index))
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kilobytes

    @pytest.mark.parametrize("protocol", [3, 4, 5])
    def test_plain_data_of_each_protocol_is_read(self, protocol: int) -> None:
        record = {"t": (1, (), (1, 2), (1, 2, 3), (1, 2, 3, 4)), "b": b"\x00", "i": [-1, 255, 65_535, 2**40], "n": None}
        assert PickleSerializer().loads(pickle.dumps(record, protocol=protocol)) == record

    def test_other_bytes_may_say_the_same(self) -> None:
        text = "".join(["sha", "red"])
        once, twice = {"x": [text, text]}, {"x": ["".join(["sha", "red"]), text]}
        assert pickle.dumps(once) != pickle.dumps(twice)
        assert PickleSerializer().holds(PickleSerializer().dumps(once), twice)

    def test_an_object_is_not_asked_to_pickle_itself(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SerializerError, match="Evil"):
            PickleSerializer().dumps({"x": Evil()})

    def test_a_long_integer_is_not_written(self) -> None:
        assert PickleSerializer().loads(PickleSerializer().dumps({"x": 2**1000})) == {"x": 2**1000}
        with pytest.raises(SerializerError, match="LONG4"):
            PickleSerializer().dumps({"x": 2**10_000})
