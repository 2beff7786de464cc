"""The list of all tenants, for people and for programs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from tenant_router.config_store.base import DELETED, META_ID, STATE_NAMES, StoredRecord, unpack
from tenant_router.exceptions import printable
from tenant_router.lifecycle import Writer
from tenant_router.log import redact
from tenant_router.orm_backends.base import BaseOrmManager
from tenant_router.orm_backends.places import section

LONGEST = 300  # characters of what is shown of one database: what a refused record says may be of any length


class Row(NamedTuple):
    """One tenant. ``databases``: ORM and template alias -> where its record leads, without secrets."""

    id: str
    state: str
    revision: int
    databases: Mapping[str, str]

    def as_dict(self) -> dict[str, Any]:
        """For programs."""
        return {**self._asdict(), "databases": dict(self.databases)}

    @property
    def cells(self) -> tuple[str, ...]:
        """What :func:`table` shows."""
        shown = ", ".join(f"{alias}={place}" for alias, place in self.databases.items())
        return self.id, self.state, str(self.revision), shown or "-"


def rows(writer: Writer, orms: Mapping[str, BaseOrmManager], only: Collection[str] | None = None) -> list[Row]:
    """All tenants but the deleted ones, or ``only`` some of them, by id. Raises ``StoreError``."""
    found = {t: unpack(entry) for t, entry in writer.index().items() if t != META_ID}
    live = sorted(tenant_id for tenant_id, (_, state, _) in found.items() if state != DELETED)
    if only is not None:
        live = sorted(set(only).intersection(live))
    records = writer.records(live)
    return [
        Row(t, STATE_NAMES.get(found[t][1], found[t][1]), found[t][0], _databases(writer, orms, t, records.get(t)))
        for t in live
    ]


def table(rows: Iterable[Row]) -> Iterator[str]:
    """A header and a line per tenant, the columns aligned."""
    yield from aligned([("TENANT", "STATE", "REVISION", "DATABASES"), *(row.cells for row in rows)])


def aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """A line per row, the columns aligned and two spaces apart."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _databases(
    writer: Writer, orms: Mapping[str, BaseOrmManager], tenant_id: str, stored: StoredRecord | None
) -> dict[str, str]:
    record = writer.decoded(tenant_id, stored) if stored else None
    if record is None:
        return {"record": "cannot be read"}
    found: dict[str, str] = {}
    for orm_id, manager in orms.items():
        places = dict(manager.locations(tenant_id, section(record, orm_id)))
        found |= {f"{orm_id}.{alias}": _place(places.get(alias, ())) for alias in manager.template_aliases}
    return found


def _place(location: tuple[str, ...]) -> str:
    """What tells a database from every other one, which no secret is part of."""
    parts = (part.removeprefix("django.db.backends.") for part in location)
    told = printable(redact("/".join(part for part in parts if part)))
    return (told if len(told) <= LONGEST else f"{told[:LONGEST]}...") or "as the template says"
