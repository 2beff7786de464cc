"""Secrets: what passwords are from the moment a record or a setting is decoded.

A :class:`Secret` is opaque wherever it turns up: in logs, reports, pages, ``repr``, messages. The
dictionary that a driver reads has :class:`SecretText` in its place, because drivers, ``dbshell``
and packages want a ``str``; that one masks its ``repr``, which is what error pages print.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NoReturn, TypeVar

_Error = TypeVar("_Error", bound=BaseException)
MASK = "***"
_NAME = re.compile(
    r"pas|psw|pwd|secret|token|key|credential|signature|auth|bearer|(?:^|[_-])pw(?:$|[_-])", re.IGNORECASE
)
_NO_SECRETS = frozenset({"key_prefix", "key_function"})
_NUMBERS = frozenset({bytes, int, float})
_SEQUENCES = frozenset({list, tuple, set, frozenset})
_PASSWORD_ITEM = re.compile(r"(?:pass\w*|pwd|token|secret)\s*=", re.IGNORECASE)  # of "host=h password=p"
_USER_INFO = re.compile(r":[^@]*@", re.DOTALL)
# Of a URL: the user, up to the last "@" the password, the place, and whether parameters follow. With the sign of a
# parameter before an "@" nobody can tell where the password ends, so that does not match.
_URL_IN_TEXT = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://\S*")
_SHOWABLE = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)(?P<info>(?:(?P<user>[\w.%+-]*):)?[^?#;&]*@)?"
    r"(?P<place>[^@?#;&=\s]*)(?P<more>[?#;&].*)?",
    re.DOTALL,
)


class Secret:
    """A value that shows itself as ``***`` to everybody; :meth:`reveal` is for those who use it."""

    __slots__ = ("_value",)

    def __init__(self, value: Any) -> None:
        self._value = value

    def reveal(self) -> Any:
        """The value."""
        return self._value

    def __repr__(self) -> str:
        return MASK

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        return self._value == other._value if isinstance(other, Secret) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._value)

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: object) -> Secret:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret cannot be pickled")


class SecretBytes(bytes):
    """Bytes that hold secrets: they are ``bytes`` in everything but their ``repr``."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<{len(self)} bytes>"


class SecretText(str):
    """A secret as drivers read it: a ``str`` in everything but its ``repr``."""

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(MASK)

    def __copy__(self) -> SecretText:
        return self

    def __deepcopy__(self, memo: object) -> SecretText:
        return self


@lru_cache(maxsize=1024)
def is_secret_name(name: object) -> bool:
    """Whether what goes by this name is kept secret."""
    return _NAME.search(str(name)) is not None and str(name).lower() not in _NO_SECRETS


def holds_secret(text: str) -> bool:
    """Whether ``text`` looks as if it carried a password, as URLs do: before the ``@``, or in a parameter."""
    if "@" in text:
        return _USER_INFO.search(text) is not None or "://" in text
    return "=" in text and ("://" in text or _PASSWORD_ITEM.search(text) is not None)


def masked_text(text: str) -> str:
    """A secret text to be shown: of a URL what is no secret, such as its host; ``***`` where that cannot be told."""
    found = _SHOWABLE.fullmatch(text)
    if found is None:
        return MASK
    user = f"{found['user']}:" if found["user"] is not None else ""
    return "".join(
        (
            found["scheme"],
            f"{user}{MASK}@" if found["info"] else "",
            found["place"],
            f"?{MASK}" if found["more"] else "",
        )
    )


def scrubbed(text: str) -> str:
    """``text`` that others wrote, such as an error's message, without the passwords in it."""
    if not holds_secret(text):
        return text
    made = _URL_IN_TEXT.sub(lambda found: masked_text(found[0]), text)
    return MASK if made == text or "@" in made.replace(f"{MASK}@", "") else made


def concealed(value: Any, name: str = "") -> Any:
    """``value`` with each secret in it, by its key's name or by what it looks like, as a :class:`Secret`."""
    return _wrapped(value, is_secret_name(name), Secret)


def masked(value: Any, name: str = "") -> Any:
    """As :func:`concealed`, with :class:`SecretText` for text: what a driver may read."""
    return _wrapped(value, is_secret_name(name), _for_driver)


def conceal_record(record: dict[str, Any]) -> dict[str, Any]:
    """A tenant's record with its secrets concealed; what it calls ORMs, aliases and labels never is one."""
    return {
        key: value if key == "labels" else _below(value, _NAMES_ABOVE.get(key, 0), key) for key, value in record.items()
    }


def revealed(value: Any) -> Any:
    """What :func:`concealed` was given, with :class:`SecretText` where text was concealed."""
    kind = type(value)
    if kind is dict:
        return {key: each if type(each) is str else revealed(each) for key, each in value.items()}
    if kind is Secret:
        return revealed(_for_driver(value.reveal()))
    if kind in _SEQUENCES:
        return kind(map(revealed, value))
    return value


def plain(value: Any) -> Any:
    """What :func:`concealed` or :func:`masked` was given: for those who store it."""
    if isinstance(value, Secret):
        return plain(value.reveal())
    kind = type(value)
    if kind is dict:
        return {key: each if type(each) is str else plain(each) for key, each in value.items()}
    if kind in _SEQUENCES:
        return kind(map(plain, value))
    return str.__str__(value) if kind is SecretText else value


def without_frames(error: _Error) -> _Error:
    """``error``, to be raised again, without the frames that it came through: error reports show their variables."""
    error.__cause__ = error.__context__ = None
    error.__suppress_context__ = True
    return error.with_traceback(None)


def origin(error: BaseException) -> str:
    """The type of ``error`` and the lines that it came through, without its message and without variables."""
    frames = traceback.extract_tb(error.__traceback__)[-5:]
    return " < ".join([type(error).__name__, *(f"{f.filename}:{f.lineno} in {f.name}" for f in reversed(frames))])


def mask_in_place(settings: Any) -> None:
    """Make the secrets in a dictionary of the project's settings, which others hold too, :class:`SecretText`."""
    if not isinstance(settings, dict):
        return
    for key, value in settings.items():
        if isinstance(value, dict) and not is_secret_name(str(key)):
            mask_in_place(value)
        elif (hidden := masked(value, str(key))) is not value and hidden == value:
            settings[key] = hidden


_NAMES_ABOVE = {"orm_config": 2, "cache_config": 1}  # levels of names above what is configured


def _below(value: Any, levels: int, name: str) -> Any:
    if levels and type(value) is dict:
        return {key: _below(each, levels - 1, "") for key, each in value.items()}
    return _wrapped(value, is_secret_name(name), Secret)


def _for_driver(value: Any) -> Any:
    return SecretText(value) if isinstance(value, str) else value


def _wrapped(value: Any, secret: bool, wrap: Callable[[Any], Any]) -> Any:
    kind = type(value)
    if kind is str:
        return wrap(value) if value and (secret or _suspect(value)) else value
    if kind is dict or isinstance(value, Mapping):
        return _wrapped_items(value, secret, wrap)
    if kind in _SEQUENCES:
        return kind([_wrapped(each, secret, wrap) for each in value])
    return wrap(value) if secret and value and kind in _NUMBERS else value


def _wrapped_items(given: Mapping[Any, Any], secret: bool, wrap: Callable[[Any], Any]) -> dict[Any, Any]:
    found = {}
    for key, value in given.items():
        hidden = secret or is_secret_name(key)
        # a short way for what most of them are: this is done for each tenant's record
        if hidden or type(value) is not str or ("@" in value or "=" in value or "://" in value):
            value = _wrapped(value, hidden, wrap)
        found[key] = value
    return found


def _suspect(text: str) -> bool:
    return ("@" in text or "=" in text or "://" in text) and holds_secret(text)
