"""Allow-lists: which keys a record may have in one place, and what each may be.

An allow-list maps a key to the kind of its value. Whatever it does not name is refused, with the
nearest name that it has; messages tell keys and kinds and never a value.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from difflib import get_close_matches
from typing import Any, NamedTuple, Protocol
from urllib.parse import parse_qsl, urlsplit

LONGEST = 2_000  # characters of a text that says nothing else
SHOWN = 60  # characters of a name in a message
_HALF = re.compile("[\ud800-\udfff]")  # JSON can have one half of a surrogate pair
_NEARBY = 20  # unknown keys for which a near one is looked for: it takes some time


class Kind(Protocol):
    """What a value may be."""

    def fault(self, value: Any) -> str | None:
        """What is wrong with ``value`` and what to give; ``None`` where nothing is."""

    def parse(self, text: str) -> Any:
        """The value that ``text`` stands for in a URL; ``text`` itself where it stands for none."""


AllowList = Mapping[str, Kind]


class Number(NamedTuple):
    """A number from ``least`` to ``most``, without a fraction unless ``fraction``; ``None`` where ``none``."""

    least: float
    most: float
    fraction: bool = False
    none: bool = False

    def fault(self, value: Any) -> str | None:
        """See :class:`Kind`."""
        kinds = (int, float) if self.fraction else (int,)
        good = isinstance(value, kinds) and not isinstance(value, bool)
        # compared, and not asked whether it is finite: that fails for whole numbers beyond a float's range
        if (value is None and self.none) or (good and self.least <= value <= self.most):
            return None
        return f"is no {'' if self.fraction else 'whole '}number from {self.least:g} to {self.most:g}"

    def parse(self, text: str) -> Any:
        """See :class:`Kind`."""
        try:
            return float(text) if self.fraction else int(text)
        except ValueError:
            return text


class Choice:
    """One of a few values."""

    def __init__(self, *values: Any) -> None:
        self._values = values

    def fault(self, value: Any) -> str | None:
        """See :class:`Kind`."""
        # not "in", for which True is 1
        if any(type(value) is type(each) and value == each for each in self._values):
            return None
        return f"is none of {', '.join(map(repr, self._values))}"

    def parse(self, text: str) -> Any:
        """See :class:`Kind`."""
        return next((each for each in self._values if str(each).lower() == text.lower()), text)


class Flag(Choice):
    """``True`` or ``False``."""

    def __init__(self) -> None:
        super().__init__(True, False)

    def parse(self, text: str) -> Any:
        """See :class:`Kind`."""
        return {"1": True, "0": False}.get(text, super().parse(text))


class Text(NamedTuple):
    """Text that ``pattern`` matches as a whole, of printable characters; ``None`` where ``none``."""

    what: str = "text"
    pattern: str = ""
    most: int = LONGEST
    none: bool = False

    def fault(self, value: Any) -> str | None:
        """See :class:`Kind`."""
        if value is None and self.none:
            return None
        if not isinstance(value, str):
            return f"is a {type(value).__name__}; give {self.what}"
        if len(value) > self.most or (self.pattern and re.fullmatch(self.pattern, value) is None):
            return f"is not {self.what} of at most {self.most} characters"
        return None if value.isprintable() or not control(value) else "holds a control character, or half of one"

    def parse(self, text: str) -> Any:
        """See :class:`Kind`."""
        return text


class Anything:
    """What the settings allowed by name: no more is known of it."""

    def fault(self, value: Any) -> str | None:
        """See :class:`Kind`."""
        return None

    def parse(self, text: str) -> Any:
        """See :class:`Kind`."""
        return text


class Group(NamedTuple):
    """A dictionary with an allow-list of its own, or one of the ``instead`` values."""

    keys: AllowList
    instead: tuple[Any, ...] = ()

    def fault(self, value: Any) -> str | None:
        """See :class:`Kind`."""
        if any(value is each for each in self.instead):
            return None
        if not isinstance(value, Mapping):
            return f"is a {type(value).__name__}; give a dictionary with {', '.join(sorted(self.keys))}"
        inner = next(faults(value, self.keys), None)
        return f"has a wrong key {inner[0]}, which {inner[1]}" if inner else None

    def parse(self, text: str) -> Any:
        """See :class:`Kind`."""
        return Choice(*self.instead).parse(text)


ANYTHING = Anything()


def faults(given: Mapping[str, Any], allowed: AllowList, widen: Collection[str] = ()) -> Iterator[tuple[str, str]]:
    """What is wrong with each key of ``given``, as ``(key, what is wrong)``; keys in ``widen`` may be anything."""
    unknown = 0
    for key, value in given.items():
        kind = allowed.get(key)
        if kind is not None:
            fault = kind.fault(value)
            if fault is not None and key not in widen:
                yield key, fault
        elif key not in widen:
            unknown += 1
            close = nearest(key, allowed) if unknown <= _NEARBY else None
            yield shown(key), "is not allowed in a record" + (f": did you mean {close!r}?" if close else "")


def nearest(name: str, known: Collection[str]) -> str | None:
    """Which of ``known`` may have been meant, if one is near enough."""
    close = get_close_matches(name, known, 1) if len(name) <= SHOWN else ()
    return close[0] if close else None


def parameter(name: str, url: str) -> str:
    """What a message calls a parameter of a URL: after an ``@`` behind a ``?`` it may be the end of a password."""
    return "a parameter" if "@" in url.partition("?")[2] else f"a parameter {shown(name)!r}"


def ambiguity(url: str) -> str | None:
    """What in a URL could be read in two ways: libraries differ in which of two parameters of one name they take."""
    names = [name for name, _ in parse_qsl(urlsplit(str.__str__(url)).query, keep_blank_values=True)]
    if len(names) != len({*names}):
        return "names a parameter twice"
    return "has a '#', after which a URL says nothing more: write %23" if "#" in url else None


def shown(name: object) -> str:
    """A name that others chose, short enough for a message."""
    text = str(name)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def control(text: str) -> bool:
    """Whether ``text``, which is not empty, holds a control character, or half of one (which no system call takes)."""
    return min(text) < " " or "\x7f" in text or _HALF.search(text) is not None
