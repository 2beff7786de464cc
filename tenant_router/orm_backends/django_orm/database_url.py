"""Database URLs: ``postgres://user:password@host:port/name?option=value``, as everybody spells them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from tenant_router.allow_lists import ANYTHING
from tenant_router.orm_backends.django_orm.allowed_options import options_of
from tenant_router.secrets import SecretText, masked

SCHEMES = {  # of a database URL -> how the engines that it may stand for end
    "postgres": ("postgresql", "postgis"),
    "postgresql": ("postgresql", "postgis"),
    "postgis": ("postgis",),
    "mysql": ("mysql",),
    "sqlite": ("sqlite3",),
    "spatialite": ("spatialite",),
    "oracle": ("oracle",),
}


def parse(url: object, engine: object) -> dict[str, Any]:
    """The settings in a database URL for an ``ENGINE``; none where it is no URL. Unchecked, like what a record says.

    What follows the ``?`` is text in a URL: it becomes what the engine's allow-list has by that name.
    """
    parts = _split(url)
    if parts is None:
        return {}
    options = {name: _typed(name, text, engine) for name, text in parse_qsl(parts.query, keep_blank_values=True)}
    found: dict[str, Any] = {
        # sqlite:///relative.db and sqlite:////absolute.db, as everybody spells it
        "NAME": unquote(parts.path)[1:],
        "USER": unquote(parts.username or ""),
        "PASSWORD": SecretText(unquote(parts.password or "")),
        "HOST": unquote(parts.hostname or ""),
        "PORT": parts.port or "",
        "OPTIONS": masked(options),
    }
    return {key: value for key, value in found.items() if value}


def with_url(config: Mapping[str, Any], engine: object) -> dict[str, Any]:
    """What a record says, with its ``URL`` taken apart: what stands beside the URL wins over it."""
    if "URL" not in config:
        return dict(config)
    found = parse(config["URL"], engine)
    given = {**found, **config}
    del given["URL"]
    if isinstance(config.get("OPTIONS"), Mapping):
        given["OPTIONS"] = {**found.get("OPTIONS", {}), **config["OPTIONS"]}
    return given


def _split(url: object) -> SplitResult | None:
    if not isinstance(url, str) or "://" not in url:
        return None
    try:
        parts = urlsplit(str.__str__(url))
        parts.port, parts.hostname  # noqa: B018 - both are looked at, and may be wrong, only when they are asked for
    except ValueError:
        return None
    return parts if parts.scheme in SCHEMES else None


def _typed(name: str, text: str, engine: object) -> Any:
    return options_of(engine).get(name, ANYTHING).parse(text)
