"""Records as a subset of pickle that can neither run code nor exhaust time or memory.

Refusing globals alone is not enough: nine bytes that put a value at memo index 2^28
allocate gigabytes, and a key of 163 bytes takes seconds to hash. So the opcodes are read
through before anything is executed.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from typing import Any, NoReturn

from tenant_router.config_store.serializers.base import MAX_SIZE, Serializer, check_plain, check_size
from tenant_router.exceptions import SerializerError

MAX_OPCODES = 200_000
_PROTOCOL = 4
_OLDEST, _NEWEST = 3, 5
_TYPES = frozenset({dict, list, tuple, str, int, float, bool, type(None), bytes})
# The opcodes of plain data, but the first. Some are followed by so many bytes ...
_SIZES = {
    **dict.fromkeys(b"".join((pickle.MARK, pickle.MEMOIZE, pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE)), 0),
    **dict.fromkeys(b"".join((pickle.EMPTY_DICT, pickle.SETITEM, pickle.SETITEMS)), 0),
    **dict.fromkeys(b"".join((pickle.EMPTY_LIST, pickle.APPEND, pickle.APPENDS)), 0),
    **dict.fromkeys(b"".join((pickle.EMPTY_TUPLE, pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3)), 0),
    **dict.fromkeys(b"".join((pickle.BININT1, pickle.BINGET)), 1),
    **dict.fromkeys(pickle.BININT2, 2),
    **dict.fromkeys(b"".join((pickle.BININT, pickle.LONG_BINGET)), 4),
    **dict.fromkeys(b"".join((pickle.BINFLOAT, pickle.FRAME)), 8),
}
# ... some by a number of so many bytes, and as many bytes as the number says ...
_COUNTS = {
    **dict.fromkeys(b"".join((pickle.SHORT_BINUNICODE, pickle.SHORT_BINBYTES, pickle.LONG1)), 1),
    **dict.fromkeys(b"".join((pickle.BINUNICODE, pickle.BINBYTES)), 4),
}
# ... and these by an index of so many bytes, up to which memory is taken.
_MEMO_WRITES = {pickle.BINPUT[0]: 1, pickle.LONG_BINPUT[0]: 4}
_STOP, _MEMOIZE, _SHORT_TEXT = pickle.STOP[0], pickle.MEMOIZE[0], pickle.SHORT_BINUNICODE[0]
_TEXT, _OTHER = 1, 0
# What the opcodes push that push something new.
_PUSHES = {
    **dict.fromkeys(b"".join((pickle.SHORT_BINUNICODE, pickle.BINUNICODE)), _TEXT),
    **dict.fromkeys(b"".join((pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE, pickle.BINFLOAT)), _OTHER),
    **dict.fromkeys(b"".join((pickle.BININT, pickle.BININT1, pickle.BININT2, pickle.LONG1)), _OTHER),
    **dict.fromkeys(b"".join((pickle.SHORT_BINBYTES, pickle.BINBYTES)), _OTHER),
    **dict.fromkeys(b"".join((pickle.EMPTY_DICT, pickle.EMPTY_LIST, pickle.EMPTY_TUPLE)), _OTHER),
}


class PickleSerializer(Serializer):
    """Pickle of plain data only: dict, list, tuple, str, bytes, int, float, bool and None.

    ``max_size`` is the largest accepted number of bytes. Whatever else a pickle can say
    (globals, calls, persistent ids, extensions, protocols below 3) is refused unread.
    """

    name = "pickle"

    def __init__(self, *, max_size: int = MAX_SIZE) -> None:
        self.max_size = max_size

    def dumps(self, record: dict[str, Any]) -> bytes:
        """The pickle of ``record``, looked through once so that no reader will refuse it."""
        data = pickle.dumps(check_plain(record, _TYPES), protocol=_PROTOCOL)
        _Scan(check_size(data, self.max_size)).check()
        return data

    def loads(self, data: bytes) -> dict[str, Any]:
        """The record in ``data``."""
        _Scan(check_size(data, self.max_size)).check()
        try:
            record = _PlainUnpickler(io.BytesIO(data)).load()
        except SerializerError:
            raise
        except Exception as error:  # an unpickler raises whatever a malformed stream provokes
            raise SerializerError(f"the stored record is no valid pickle: {type(error).__name__}") from None
        return check_plain(record, _TYPES)

    def holds(self, data: bytes, record: dict[str, Any]) -> bool:
        """Whether ``data`` stands for ``record``; equal bytes need not be read to know it."""
        return data == pickle.dumps(record, protocol=_PROTOCOL) or super().holds(data, record)


class _PlainUnpickler(pickle.Unpickler):
    """The second fence: no opcode that reaches these methods passes the first one."""

    def find_class(self, module_name: str, global_name: str, /) -> NoReturn:
        raise SerializerError("the stored record refers to code and was not loaded")

    def persistent_load(self, pid: Any, /) -> NoReturn:
        raise SerializerError("the stored record refers to a persistent id and was not loaded")


class _Scan:
    """Reads through the opcodes as Python will execute them, and knows of each value whether it is text.

    So a key is known to be text before anybody hashes it: tuples that share their parts take 2^n steps to
    hash, and numbers can be chosen whose hashes are equal.
    """

    __slots__ = ("_data", "_kinds", "_marks", "_memo")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._kinds: list[int] = []  # of the values on the stack
        self._marks: list[int] = []  # how many were there at each mark
        self._memo: dict[int, int] = {}

    def check(self) -> None:
        """Raise ``SerializerError`` unless all of it is plain data within the limits."""
        data = self._data
        if data[:1] != pickle.PROTO or not _OLDEST <= int.from_bytes(data[1:2], "little") <= _NEWEST:
            raise SerializerError(f"the stored record is not in pickle protocol {_OLDEST} to {_NEWEST}")
        try:
            end = self._run()
        except (IndexError, KeyError):
            raise SerializerError("the stored record is no pickle: it has no end, or takes what is not there") from None
        if end != len(data):
            raise SerializerError("the stored record has bytes after the end of its pickle")

    def _run(self) -> int:
        data, kinds, memo, position = self._data, self._kinds, self._memo, 2
        for count in range(2, MAX_OPCODES + 1):
            opcode, position = data[position], position + 1
            if opcode == _MEMOIZE:  # nearly all are this one ...
                memo[len(memo)] = kinds[-1]
            elif opcode == _SHORT_TEXT:  # ... or that
                position += 1 + data[position]
                kinds.append(_TEXT)
            elif opcode == _STOP:
                return position
            else:
                size = _SIZES.get(opcode)
                begin, position = position, position + (_size(data, opcode, position, count) if size is None else size)
                if opcode in _PUSHES:
                    kinds.append(_PUSHES[opcode])
                else:
                    argument = int.from_bytes(data[begin:position], "little") if position > begin else 0
                    _EFFECTS[opcode](self, argument)
        raise SerializerError(f"the stored record has more than {MAX_OPCODES} pickle opcodes")

    # --- the effects of what pushes no new value; the argument counts for the memo alone ---

    def nothing(self, argument: int) -> None:
        """Of a frame: how much Python should read at once."""

    def mark(self, argument: int) -> None:
        """Remember how many values there are."""
        self._marks.append(len(self._kinds))

    def put(self, argument: int) -> None:
        """Remember the top value."""
        self._memo[argument] = self._kinds[-1]

    def get(self, argument: int) -> None:
        """Push a remembered value."""
        self._kinds.append(self._memo[argument])

    def drop(self, argument: int) -> None:
        """Take the value of an ``APPEND``."""
        self._kinds.pop()

    def drop_items(self, argument: int) -> None:
        """Take the values of an ``APPENDS``."""
        del self._kinds[self._marks.pop() :]

    def set_item(self, argument: int) -> None:
        """Take a key and its value."""
        _check_keys(self._kinds[-2:-1])
        del self._kinds[-2:]

    def set_items(self, argument: int) -> None:
        """Take keys and their values, in turns."""
        mark = self._marks.pop()
        _check_keys(self._kinds[mark::2])
        del self._kinds[mark:]

    def tuple_of_items(self, argument: int) -> None:
        """Make one value of all since the mark."""
        self.drop_items(argument)
        self._kinds.append(_OTHER)

    def tuple_of(self, count: int) -> None:
        """Make one value of so many."""
        del self._kinds[-count:]
        self._kinds.append(_OTHER)


_EFFECTS: dict[int, Callable[[_Scan, int], None]] = {
    pickle.FRAME[0]: _Scan.nothing,
    pickle.MARK[0]: _Scan.mark,
    pickle.BINPUT[0]: _Scan.put,
    pickle.LONG_BINPUT[0]: _Scan.put,
    pickle.BINGET[0]: _Scan.get,
    pickle.LONG_BINGET[0]: _Scan.get,
    pickle.APPEND[0]: _Scan.drop,
    pickle.APPENDS[0]: _Scan.drop_items,
    pickle.SETITEM[0]: _Scan.set_item,
    pickle.SETITEMS[0]: _Scan.set_items,
    pickle.TUPLE[0]: _Scan.tuple_of_items,
    pickle.TUPLE1[0]: lambda scan, _: scan.tuple_of(1),
    pickle.TUPLE2[0]: lambda scan, _: scan.tuple_of(2),
    pickle.TUPLE3[0]: lambda scan, _: scan.tuple_of(3),
}


def _check_keys(kinds: list[int]) -> None:
    if _OTHER in kinds:
        raise SerializerError("the keys of a record are strings; the stored one has others")


def _size(data: bytes, opcode: int, begin: int, count: int) -> int:
    """How many bytes the argument has that begins at ``begin``, of the opcode ``opcode``, the ``count``-th one."""
    width = _COUNTS.get(opcode) or _MEMO_WRITES.get(opcode)
    if width is None:
        import pickletools  # for its names; what is read every day needs none

        name = {known.code: known.name for known in pickletools.opcodes}.get(chr(opcode), f"0x{opcode:02x}")
        raise SerializerError(f"the stored record has the pickle opcode {name}, which plain data does not need")
    number = int.from_bytes(data[begin : begin + width], "little")
    if opcode in _COUNTS:
        return width + number
    if number >= count:
        raise SerializerError("the stored record has a pickle memo that is larger than the record")
    return width
