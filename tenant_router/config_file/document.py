"""Parses the configuration file: one record per tenant, or everything that is wrong with it.

Nothing here knows what a database is. Which keys a connection has, and what they may be, is
checked by the managers; here it is the shape of the file and the names in it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

from tenant_router.config_file import schema
from tenant_router.config_file.names import KnownNames, as_object, record_faults
from tenant_router.config_file.paths import Fault, listing, render, shown
from tenant_router.exceptions import RecordInvalid
from tenant_router.identity import alias_twin
from tenant_router.secrets import conceal_record

MAX_FILE_SIZE = 256 * 2**20  # bytes


class ConfigFile(NamedTuple):
    """What a configuration file says to one service.

    ``records`` maps each tenant id to its record for this service, secrets concealed; ``skipped`` maps each other
    service in the file to the tenants that have a section for it.
    """

    records: dict[str, dict[str, Any]]
    mapping_metadata: dict[str, str]
    skipped: dict[str, list[str]]


def read(path_or_dash: str, base_dir: Path, stdin: IO[bytes]) -> bytes:
    """The bytes of a configuration file, or of ``stdin`` for ``-``.

    A bare file name is looked up in ``base_dir``; a path with a separator is taken as it is.
    Raises :class:`~tenant_router.exceptions.RecordInvalid` with one problem, whose path is ``""``,
    when it is missing, unreadable, no file, or larger than ``MAX_FILE_SIZE``.
    """
    if path_or_dash == "-":
        return _within_limit(stdin.read(MAX_FILE_SIZE + 1), "standard input")
    bare = not {os.sep, os.altsep} & {*path_or_dash}
    path = base_dir / path_or_dash if bare else Path(path_or_dash)
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_SIZE + 1)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        hint = " (a bare file name is looked up in BASE_DIR)" if bare else ""
        raise RecordInvalid([("", f"cannot read {shown(str(path))}: {why}{hint}")]) from error
    return _within_limit(data, shown(str(path)))


def _within_limit(data: bytes, name: str) -> bytes:
    if len(data) > MAX_FILE_SIZE:
        raise RecordInvalid([("", f"{name} is larger than {MAX_FILE_SIZE:,} bytes: load it in several parts")])
    return data


def parse(
    text: str | bytes,
    *,
    service: str,
    templates: Mapping[str, Collection[str]],
    reserved: Mapping[str, Collection[str]],
    cache_templates: Collection[str],
    cache_reserved: Collection[str],
) -> ConfigFile:
    """Read the text of a configuration file for ``service``.

    ``templates`` and ``reserved`` map each ORM id to its template and reserved aliases. Raises
    :class:`~tenant_router.exceptions.RecordInvalid` with every problem and its JSON path, in the
    order of the paths.
    """
    known = KnownNames(templates, reserved, cache_templates, cache_reserved)
    from tenant_router.config_file import strict_json  # no server reads a file

    document, faults = strict_json.loads(text)
    faults += _unwrapped(document, service) or [
        *schema.faults("tenant_config", document),
        *_tenant_faults(as_object(as_object(document).get("tenant_config")), service, known),
    ]
    if faults:
        raise RecordInvalid(sorted((render(keys), what) for keys, what in faults))
    return _sorted_out(document, service)


def check_record(
    record: object,
    *,
    templates: Mapping[str, Collection[str]],
    reserved: Mapping[str, Collection[str]],
    cache_templates: Collection[str],
    cache_reserved: Collection[str],
) -> list[tuple[str, str]]:
    """Everything wrong with one record, as ``(path within the record, what is wrong and what to do)``."""
    known = KnownNames(templates, reserved, cache_templates, cache_reserved)
    faults = [*schema.faults("record", record), *record_faults((), as_object(record), known)]
    return [(render(keys, root=""), what) for keys, what in faults]


def _sorted_out(document: dict[str, Any], service: str) -> ConfigFile:
    found = ConfigFile({}, document["mapping_metadata"], {})
    for tenant_id, services in document.get("tenant_config", {}).items():
        for name, section in services.items():
            if name == service:
                found.records[tenant_id] = conceal_record(section)
            else:
                found.skipped.setdefault(name, []).append(tenant_id)
    return found


def _unwrapped(document: object, service: str) -> list[Fault]:
    """The fault of a file that has its tenants at the top level, where they are easily put."""
    outer = as_object(document)
    tenants = [key for key, value in outer.items() if key != "tenant_config" and _holds_records(value)]
    if not tenants or "tenant_config" in outer:
        return []
    first, ours = json.dumps(tenants[0][:60]), json.dumps(service)
    form = f'{{"mapping_metadata": {{}}, "tenant_config": {{{first}: {{{ours}: {{...}}}}}}}}'
    return [((), f"tenants stand under the key 'tenant_config', not at the top level: write {form}")]


def _holds_records(value: object) -> bool:
    return any({"orm_config", "cache_config"} & as_object(section).keys() for section in as_object(value).values())


def _tenant_faults(tenants: dict[str, Any], service: str, known: KnownNames) -> Iterator[Fault]:
    ours = {name: services[service] for name, services in tenants.items() if service in as_object(services)}
    if tenants and not ours:
        others = {name for services in tenants.values() for name in as_object(services)}
        yield (
            ("tenant_config",),
            f"no tenant has a section for the service {shown(service)} (there are: {listing(others)}): "
            "add one, or correct TENANT_ROUTER_SERVICE_NAME",
        )
    for tenant_id, record in ours.items():
        yield from record_faults(("tenant_config", tenant_id, service), as_object(record), known)
    yield from _twin_faults(ours, known.all_templates())


def _twin_faults(tenant_ids: Iterable[str], templates: Collection[str]) -> Iterator[Fault]:
    if not any(one.endswith(f"_{other}") for one in templates for other in templates):
        return
    seen: set[str] = set()
    for tenant_id in tenant_ids:
        seen.add(tenant_id)
        twin = alias_twin(tenant_id, templates, seen.__contains__)
        if twin is not None:
            yield (
                ("tenant_config", tenant_id),
                f"{shown(tenant_id)} and {shown(twin)} would share a connection alias: give one of them another id",
            )
