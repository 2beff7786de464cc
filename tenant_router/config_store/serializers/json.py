"""Records as canonical JSON."""

from __future__ import annotations

import json
import math
from typing import Any

from tenant_router.config_store.serializers.base import MAX_SIZE, Serializer, check_plain, check_size
from tenant_router.exceptions import SerializerError

MAX_DIGITS = 4_300  # of a whole number, as Python itself has it by now
_WRITABLE = frozenset({dict, list, tuple, str, int, float, bool, type(None)})


class JSONSerializer(Serializer):
    """JSON in ASCII with sorted keys and no spaces: equal records have equal bytes.

    ``max_size`` is the largest accepted number of bytes. Tuples come back as lists; NaN,
    infinities and duplicate keys are refused.
    """

    name = "json"

    def __init__(self, *, max_size: int = MAX_SIZE) -> None:
        self.max_size = max_size

    def dumps(self, record: dict[str, Any]) -> bytes:
        """The canonical bytes of ``record``."""
        check_plain(record, _WRITABLE)
        try:
            text = json.dumps(record, sort_keys=True, separators=(",", ":"), allow_nan=False)
        except ValueError:
            raise SerializerError("the record holds NaN or an infinity, or a number too long for JSON") from None
        return check_size(text.encode("ascii"), self.max_size)

    def loads(self, data: bytes) -> dict[str, Any]:
        """The record in ``data``."""
        check_size(data, self.max_size)
        try:
            # from None below: the decoder's exception carries the whole document
            record = _DECODER.decode(data.decode("utf-8"))
        except SerializerError:
            raise
        except json.JSONDecodeError as error:
            raise SerializerError(f"the stored record is no JSON: {error.msg} at character {error.pos}") from None
        except (ValueError, RecursionError) as error:
            raise SerializerError(f"the stored record is no JSON: {type(error).__name__}") from None
        return check_plain(record, _WRITABLE)


def _short(text: str) -> int:
    # Python before 3.11 takes quadratic time for one of any length
    if len(text) > MAX_DIGITS:
        raise SerializerError(f"the stored record holds a number of more than {MAX_DIGITS} digits")
    return int(text)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise SerializerError("the stored record holds NaN, an infinity or a number beyond a float's range")
    return number


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise SerializerError("the stored record has an object in which a key occurs twice")
    return found


# made once: it takes longer to make than to read a record with
_DECODER = json.JSONDecoder(parse_int=_short, parse_float=_finite, parse_constant=_finite, object_pairs_hook=_unique)
