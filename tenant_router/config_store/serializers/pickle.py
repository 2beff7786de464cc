"""Records as a subset of pickle that can neither run code nor exhaust memory.

Refusing globals alone is not enough: nine bytes that put a value at memo index 2^28
allocate gigabytes. So the opcodes are read through before anything is executed.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from typing import Any, NoReturn

from tenant_router.config_store.serializers.base import MAX_SIZE, Serializer, check_plain, check_size
from tenant_router.exceptions import SerializerError

MAX_OPCODES = 200_000
_PROTOCOL = 4
_OLDEST, _NEWEST = 3, 5
_TYPES = frozenset({dict, list, tuple, str, int, float, bool, type(None), bytes})
_MEMO_WRITES = frozenset({"BINPUT", "LONG_BINPUT"})
_OPCODES = _MEMO_WRITES | {
    *("PROTO", "FRAME", "STOP", "MARK", "MEMOIZE", "BINGET", "LONG_BINGET"),
    *("EMPTY_DICT", "SETITEM", "SETITEMS", "EMPTY_LIST", "APPEND", "APPENDS"),
    *("EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
    *("SHORT_BINUNICODE", "BINUNICODE", "SHORT_BINBYTES", "BINBYTES"),
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "NONE", "NEWTRUE", "NEWFALSE"),
}
_HARMLESS = _OPCODES - _MEMO_WRITES - {"PROTO"}  # wherever they are, but first


class PickleSerializer(Serializer):
    """Pickle of plain data only: dict, list, tuple, str, bytes, int, float, bool and None.

    ``max_size`` is the largest accepted number of bytes. Whatever else a pickle can say
    (globals, calls, persistent ids, extensions, protocols below 3) is refused unread.
    """

    name = "pickle"

    def __init__(self, *, max_size: int = MAX_SIZE) -> None:
        self.max_size = max_size

    def dumps(self, record: dict[str, Any]) -> bytes:
        """The pickle of ``record``, read back once so that no reader will refuse it."""
        data = pickle.dumps(check_plain(record, _TYPES), protocol=_PROTOCOL)
        self.loads(data)
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


class _PlainUnpickler(pickle.Unpickler):
    """The second fence: no opcode that reaches these methods passes the first one."""

    def find_class(self, module_name: str, global_name: str, /) -> NoReturn:
        raise SerializerError("the stored record refers to code and was not loaded")

    def persistent_load(self, pid: Any, /) -> NoReturn:
        raise SerializerError("the stored record refers to a persistent id and was not loaded")


def _check_opcodes(data: bytes) -> None:
    end = count = 0
    try:
        for opcode, argument, position in pickletools.genops(data):
            count += 1
            if opcode.name not in _HARMLESS or count == 1 or count > MAX_OPCODES:
                _check_opcode(opcode.name, argument, count)
            end = (position or 0) + 1
    except SerializerError:
        raise
    except Exception as error:  # genops decodes arguments, and fails in as many ways as there are kinds of them
        raise SerializerError(f"the stored record is no pickle: {type(error).__name__}") from None
    if end != len(data):
        raise SerializerError("the stored record has bytes after the end of its pickle")


def _check_opcode(name: str, argument: Any, count: int) -> None:
    if name not in _OPCODES:
        raise SerializerError(f"the stored record has the pickle opcode {name}, which plain data does not need")
    if count > MAX_OPCODES:
        raise SerializerError(f"the stored record has more than {MAX_OPCODES} pickle opcodes")
    if (name == "PROTO") != (count == 1) or (name == "PROTO" and not _OLDEST <= argument <= _NEWEST):
        raise SerializerError(f"the stored record is not in pickle protocol {_OLDEST} to {_NEWEST}")
    if name in _MEMO_WRITES and argument >= count:
        raise SerializerError("the stored record has a pickle memo that is larger than the record")
