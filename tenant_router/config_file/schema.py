"""The JSON Schemas of the configuration file and of one tenant's record.

``tenant_config.schema.json`` describes a whole file, ``record.schema.json`` one tenant's
section for one service. Both are documentation as well: editors complete and explain keys
with them.
"""

from __future__ import annotations

from tenant_router.config_file.paths import Fault, render
from tenant_router.config_file.structure import IS_VALID

__all__ = ["check", "faults"]


def check(name: str, document: object) -> list[tuple[str, str]]:
    """Everything wrong with the structure of ``document``, as ``(json path, what is wrong and what to do)``.

    ``name`` is ``"tenant_config"`` or ``"record"`` (else ``KeyError``). The messages show keys and
    types, never a value.
    """
    return [(render(keys), what) for keys, what in faults(name, document)]


def faults(name: str, document: object) -> list[Fault]:
    """As :func:`check`, each place as the tuple of keys that leads to it."""
    if IS_VALID[name](document):
        return []
    from tenant_router.config_file.report import report

    return report(name, document)
