"""Which tenants are meant: one grammar for every command that takes several.

``acme.example.com`` (an id), ``acme-*`` (a glob), ``:all:``, ``:state=suspended``, ``:label=pro``, ``@file`` and ``-``
(selectors, a line each; what follows ``#`` is a comment), and for a person who types them unique whole leading labels:
``acme`` for ``acme.example.com``, never a part of a label. An id is meant in whatever state its tenant is, ``:state=``
says which; globs, ``:all:`` and ``:label=`` mean the tenants that a command is for, most often the active ones.
"""

from __future__ import annotations

import fnmatch
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TextIO

from tenant_router.allow_lists import nearest, shown
from tenant_router.config_store.base import ACTIVE, DELETED, META_ID, STATE_NAMES, UNREADABLE, packed_state
from tenant_router.exceptions import TenantNotFound, TenantRouterError
from tenant_router.fleet.labels import with_label

EXISTING = "".join(state for state in STATE_NAMES if state != DELETED)
ANY = EXISTING + packed_state(UNREADABLE)
NAMED = 5  # that a message names
MANY = 10_000  # tenants
_STATES = {name: state for state, name in STATE_NAMES.items() if state != DELETED}
_KINDS = (":all:", ":state=", ":label=")


class SelectionError(TenantRouterError, ValueError):
    """Selectors that mean nobody, or nobody can tell whom."""


class UnknownTenants(SelectionError, TenantNotFound):
    """Selectors that name tenants that do not exist, or no longer."""


class Selector(NamedTuple):
    """One selector and where it stands: a line of a file, or nothing for the command line. ``typed``: by a person."""

    text: str
    where: str = ""
    typed: bool = False

    def __str__(self) -> str:
        return repr(shown(self.text)) + (f" ({self.where})" if self.where else "")


class Selection(NamedTuple):
    """Who is meant, in the order of the selectors, and remarks on who is left out."""

    tenant_ids: list[str]
    remarks: list[str]


def read(words: Iterable[str], *, stdin: TextIO | None, typed: bool = False) -> list[Selector]:
    """The selectors of a command line, those in files and in ``stdin`` included. Raises ``SelectionError``."""
    return [selector for word in words for selector in _read(word, stdin, typed)]


def states_in(index: Mapping[str, str]) -> dict[str, str]:
    """Tenant id -> state letter, of a store's or the registry's index."""
    return {tenant_id: packed_state(entry) for tenant_id, entry in index.items() if tenant_id != META_ID}


class Tenants:
    """The tenants among which is selected: ``states`` has each one's state letter, deleted ones included.

    ``meant``: the states of those whom globs, ``:all:`` and ``:label=`` mean. ``labelled(ids, label)``: those that
    have it.
    """

    def __init__(
        self,
        states: Mapping[str, str],
        meant: str = ACTIVE,
        labelled: Callable[[Iterable[str], str], Iterable[str]] = with_label,
    ) -> None:
        self._states, self._meant, self._labelled = states, meant, labelled

    def select(self, selectors: Sequence[Selector], excluded: Sequence[Selector] = ()) -> Selection:
        """Who is meant. Raises ``SelectionError`` for unknown ones, and if that is nobody; ``StoreError``."""
        remarks: list[str] = []
        found, idle = self._meant_by(selectors, remarks)
        without, idle_too = Tenants(self._states, ANY, self._labelled)._meant_by(excluded, remarks)
        left = [tenant_id for tenant_id in found if tenant_id not in without]
        if not left:
            raise SelectionError(_nobody(selectors, remarks, bool(found)))
        return Selection(left, remarks + [f"{selector} means nobody" for selector in idle + idle_too])

    def _meant_by(self, selectors: Iterable[Selector], remarks: list[str]) -> tuple[dict[str, None], list[Selector]]:
        """Whom selectors mean, in their order, and those that mean nobody."""
        found: dict[str, None] = {}
        idle, unknown = list[Selector](), list[Selector]()
        for selector in selectors:
            matching = self._matching(selector, remarks)
            if matching is None:
                unknown.append(selector)
            else:
                found.update(dict.fromkeys(matching))
                idle += [] if matching else [selector]
        if unknown:
            raise UnknownTenants(self._unknown(unknown))
        return found, idle

    def _matching(self, selector: Selector, remarks: list[str]) -> list[str] | None:
        """Whom a selector means; ``None`` for an id that is nobody's."""
        text = selector.text
        if (state := self._states.get(text)) is not None:
            if state == DELETED:
                raise UnknownTenants(f"tenant {selector} was deleted")
            return [text]
        if text.startswith(":"):
            return self._of_a_kind(selector)
        if any(mark in text for mark in "*?["):
            return self._like(selector, remarks)
        candidates = self._with_leading_labels(text) if selector.typed else []
        if len(candidates) > 1:
            raise SelectionError(f"{selector} may be {_named(candidates)}: give the whole id")
        return candidates or None

    def _of_a_kind(self, selector: Selector) -> list[str]:
        kind, equals, value = selector.text.partition("=")
        if selector.text == ":all:":
            return self._in(self._meant)
        if kind == ":state" and value in _STATES:
            return self._in(_STATES[value])
        if kind == ":state" and equals:
            raise SelectionError(f"{selector}: no tenant can be in that state; there are {', '.join(_STATES)}")
        if kind == ":label" and value:
            return sorted(self._labelled(self._in(self._meant), value))
        close = nearest(selector.text, _KINDS)
        raise SelectionError(
            f"{selector} is no selector"
            + (f": did you mean {close!r}?" if close else f"; there are {', '.join(_KINDS)}")
        )

    def _in(self, states: str) -> list[str]:
        return sorted(tenant_id for tenant_id, state in self._states.items() if state in states)

    def _like(self, selector: Selector, remarks: list[str]) -> list[str]:
        like = re.compile(fnmatch.translate(selector.text)).match
        matching = [tenant_id for tenant_id, state in self._states.items() if state != DELETED and like(tenant_id)]
        others = Counter(self._states[one] for one in matching if self._states[one] not in self._meant)
        remarks += [
            f"{selector} leaves out {count} that {'is' if count == 1 else 'are'} {STATE_NAMES.get(state, 'unreadable')}"
            for state, count in sorted(others.items())
        ]
        return sorted(one for one in matching if self._states[one] in self._meant)

    def _with_leading_labels(self, text: str) -> list[str]:
        labels = text.split(".")
        return sorted(
            tenant_id
            for tenant_id, state in self._states.items()
            if state != DELETED and tenant_id.split(".", len(labels))[: len(labels)] == labels
        )

    def _unknown(self, selectors: Sequence[Selector]) -> str:
        told = list[str]()
        for selector in selectors[:NAMED]:
            # one such look among 100,000 names takes seconds
            close = self._near(selector.text) if not told or len(self._states) < MANY else None
            told.append(f"{selector}" + (f" (did you mean {close}?)" if close else ""))
        more = len(selectors) - len(told)
        tenants = "no tenant" if len(selectors) == 1 else "no tenants"
        verb = "is" if len(selectors) == 1 else "are"
        return f"{tenants} {', '.join(told)}{f' and {more} more' if more else ''} {verb} known"

    def _near(self, text: str) -> str | None:
        candidates = self._with_leading_labels(text)
        if candidates:
            return _named(candidates)
        return nearest(text.lower(), [tenant_id for tenant_id, state in self._states.items() if state != DELETED])


def _read(word: str, stdin: TextIO | None, typed: bool) -> Iterator[Selector]:
    if word == "-":
        yield from _lines(_text_of(stdin), "standard input")
    elif word.startswith("@"):
        yield from _lines(_text_in(word[1:]), word[1:])
    elif not word.strip():
        raise SelectionError("an empty selector means nobody: write ':all:' for all active tenants")
    else:
        yield Selector(word, typed=typed)


def _text_of(stdin: TextIO | None) -> str:
    if stdin is None or stdin.closed:
        raise SelectionError("'-' reads selectors from the standard input, which is closed")
    try:
        return stdin.read()
    except UnicodeDecodeError as error:
        raise SelectionError(f"the selectors in the standard input are no text: {error.reason}") from error


def _text_in(name: str) -> str:
    try:
        return Path(name).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise SelectionError(f"{'@' + name!r}: the file cannot be read: {error.strerror}") from error
    except ValueError as error:  # no UTF-8, or a name with a null character
        raise SelectionError(f"{'@' + name!r}: the file cannot be read: it is no text in UTF-8") from error


def _lines(text: str, name: str) -> Iterator[Selector]:
    for number, line in enumerate(text.splitlines(), 1):
        word = line.partition("#")[0].strip()
        if word == "-" or word.startswith("@"):
            raise SelectionError(f"line {number} of {name}: {word!r} leads to another list; write its selectors here")
        if word:
            yield Selector(word, f"line {number} of {name}")


def _nobody(selectors: Sequence[Selector], remarks: Sequence[str], excluded: bool) -> str:
    if excluded:
        return "no tenant is selected: all that were are excluded"
    if not selectors:
        return "no tenant is selected: the list is empty"
    told = _named([str(selector) for selector in selectors])
    return "; ".join([f"no tenant is selected by {told}", *remarks])


def _named(names: Sequence[str]) -> str:
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")
