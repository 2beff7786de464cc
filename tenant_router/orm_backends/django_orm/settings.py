"""From a template and a tenant's record to the settings of one connection."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from django.conf import settings as django_settings
from django.db.utils import ConnectionHandler

from tenant_router.exceptions import RecordInvalid

_SCHEMES = {  # of a database URL -> how the engines that it may stand for end
    "postgres": ("postgresql", "postgis"),
    "postgresql": ("postgresql", "postgis"),
    "postgis": ("postgis",),
    "mysql": ("mysql",),
    "sqlite": ("sqlite3",),
    "oracle": ("oracle",),
}
_TEXT = (str,)
_FLAG = (bool,)
_TYPES: dict[str, tuple[type, ...]] = {
    "ENGINE": _TEXT,
    "NAME": _TEXT,
    "URL": _TEXT,
    "USER": _TEXT,
    "PASSWORD": _TEXT,
    "PASS": _TEXT,
    "HOST": _TEXT,
    "PORT": (int, str),
    "OPTIONS": (Mapping,),
    "TEST": (Mapping,),
    "CONN_MAX_AGE": (int, float, type(None)),
    "CONN_HEALTH_CHECKS": _FLAG,
    "ATOMIC_REQUESTS": _FLAG,
    "AUTOCOMMIT": _FLAG,
    "DISABLE_SERVER_SIDE_CURSORS": _FLAG,
    "TIME_ZONE": (str, type(None)),
}


_ATOMS = frozenset({str, int, float, bool, type(None)})


class SettingsDict(dict[str, Any]):
    """The settings of one tenant's connection; its ``repr`` shows where it leads and no secret."""

    def __repr__(self) -> str:
        shown = {key: self[key] for key in ("ENGINE", "NAME", "HOST", "PORT") if self.get(key)}
        return f"<{type(self).__name__} {shown}>"


def complete(template: dict[str, Any]) -> None:
    """Fill in what a template leaves to Django, in place, as Django does when ``connections`` is first used."""
    # for every alias of the dictionary it is given, which must have one called "default"
    ConnectionHandler().configure_settings({"default": template})


def build(template: Mapping[str, Any], config: Mapping[str, Any], engines: Collection[str] = ()) -> SettingsDict:
    """Merge a tenant's ``config`` into its ``template``, which is :func:`complete`.

    ``OPTIONS`` and ``TEST`` merge one level deep, ``PASS`` is ``PASSWORD``, ``URL`` is taken
    apart, a relative SQLite file lies below ``BASE_DIR``. ``engines`` are allowed besides the
    template's own. Raises ``RecordInvalid`` with every fault, by key and without values.
    """
    faults = list(_faults(template, config, engines))
    if faults:
        raise RecordInvalid(faults)
    given = {**_from_url(config.get("URL")), **config}
    given.pop("URL", None)
    if "PASS" in given:
        given["PASSWORD"] = given.pop("PASS")
    nested = {key: {**template.get(key, {}), **given.get(key, {})} for key in ("OPTIONS", "TEST")}
    merged = SettingsDict(_copied({**template, **given, **nested}))
    merged["NAME"] = _database_name(merged)
    return merged


def _copied(value: Any) -> Any:
    """``copy.deepcopy``, three times as fast for what nearly all settings are: it is done for each tenant."""
    if type(value) is dict:
        return {key: each if type(each) in _ATOMS else _copied(each) for key, each in value.items()}
    return copy.deepcopy(value)


def _faults(
    template: Mapping[str, Any], config: Mapping[str, Any], engines: Collection[str]
) -> Iterator[tuple[str, str]]:
    for key, value in config.items():
        kinds = _TYPES.get(key)
        if kinds is None and key not in template:
            yield key, f"is no setting of a database (known are {', '.join(_TYPES)})"
        elif kinds is not None and (not isinstance(value, kinds) or (isinstance(value, bool) and kinds is not _FLAG)):
            yield key, f"is a {type(value).__name__}; give a {' or '.join(kind.__name__ for kind in kinds)}"
        elif isinstance(value, str) and not value.isprintable() and min(value) < " ":
            yield key, "holds a control character"
    yield from _name_faults(config)
    yield from _engine_faults(template, config, engines)
    port = config.get("PORT")
    if isinstance(port, str) and port and not port.isdigit():
        yield "PORT", "is no number"


def _name_faults(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if "URL" in config:
        if "NAME" in config:
            yield "URL", "and NAME cannot both be given"
        elif isinstance(config["URL"], str) and not _from_url(config["URL"]).get("NAME"):
            yield "URL", "names no database: it ends in /<database name>"
    elif not config.get("NAME"):
        yield "NAME", "is missing: each tenant has a database of its own (NAME, or URL)"
    if "PASS" in config and "PASSWORD" in config:
        yield "PASS", "and PASSWORD are the same setting: give one"


def _engine_faults(
    template: Mapping[str, Any], config: Mapping[str, Any], engines: Collection[str]
) -> Iterator[tuple[str, str]]:
    own = template.get("ENGINE", "")
    engine = config.get("ENGINE", own)
    if isinstance(engine, str) and engine != own and engine not in engines:
        yield "ENGINE", f"differs from the template's {own!r}; OPTIONS['ALLOW_ENGINES'] of the ORM can allow it"
    url = config.get("URL")
    if isinstance(url, str) and isinstance(engine, str):
        scheme = url.split(":", 1)[0]
        if engine.rsplit(".", 1)[-1] not in _SCHEMES.get(scheme, ()):
            yield "URL", f"has the scheme {scheme[:20]!r}, which does not belong to {engine!r}"


def _from_url(url: object) -> dict[str, Any]:
    """The settings in a database URL: ``postgres://user:password@host:port/name?option=value``."""
    if not isinstance(url, str):
        return {}
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return {}
    name = unquote(parts.path)
    found: dict[str, Any] = {
        # sqlite:///relative.db and sqlite:////absolute.db, as everybody spells it
        "NAME": name[1:],
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": unquote(parts.hostname or ""),
        "PORT": port or "",
        "OPTIONS": dict(parse_qsl(parts.query)),
    }
    return {key: value for key, value in found.items() if value}


def _database_name(settings: Mapping[str, Any]) -> Any:
    name = settings["NAME"]
    file_based = settings.get("ENGINE", "").endswith(("sqlite3", "spatialite"))
    if not file_based or name == ":memory:" or name.startswith("file:"):
        return name
    return str(Path(getattr(django_settings, "BASE_DIR", "."), name))


def location(template: Mapping[str, Any], config: Mapping[str, Any]) -> tuple[str, ...] | None:
    """What tells two databases apart: engine, host, port and name; ``None`` for settings that name none."""
    given = {**_from_url(config.get("URL")), **config}
    name, engine = given.get("NAME"), given.get("ENGINE", template["ENGINE"])
    if not name or not isinstance(name, str) or not isinstance(engine, str):
        return None
    host, port = (str(given.get(key, template.get(key)) or "") for key in ("HOST", "PORT"))
    return engine, host, port, str(_database_name({"ENGINE": engine, "NAME": name}))
