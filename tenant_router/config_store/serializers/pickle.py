"""Records as a subset of pickle that can neither run code nor exhaust memory.

Refusing globals alone is not enough: nine bytes that put a value at memo index 2^28
allocate gigabytes. So the opcodes are read through before anything is executed.
"""

from __future__ import annotations

import io
import pickle
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
_STOP = pickle.STOP[0]


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
        _check_opcodes(check_size(data, self.max_size))
        return data

    def loads(self, data: bytes) -> dict[str, Any]:
        """The record in ``data``."""
        _check_opcodes(check_size(data, self.max_size))
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


def _check_opcodes(data: bytes) -> None:
    if data[:1] != pickle.PROTO or not _OLDEST <= int.from_bytes(data[1:2], "little") <= _NEWEST:
        raise SerializerError(f"the stored record is not in pickle protocol {_OLDEST} to {_NEWEST}")
    position = 2
    for count in range(2, MAX_OPCODES + 1):
        if position >= len(data):
            raise SerializerError("the stored record is no pickle: it has no end")
        opcode, position = data[position], position + 1
        if opcode == _STOP:
            break
        size = _SIZES.get(opcode)
        position += _check_argument(data, opcode, position, count) if size is None else size
    else:
        raise SerializerError(f"the stored record has more than {MAX_OPCODES} pickle opcodes")
    if position != len(data):
        raise SerializerError("the stored record has bytes after the end of its pickle")


def _check_argument(data: bytes, opcode: int, begin: int, count: int) -> int:
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
