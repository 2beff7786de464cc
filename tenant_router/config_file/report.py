"""Explains in plain words what a JSON Schema finds wrong with a document.

``jsonschema`` is imported at the first report: most processes never write one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from typing import Any

from tenant_router.config_file.paths import Fault, Keys, kind, listing, shown
from tenant_router.config_file.structure import is_object

NAMES = ("record", "tenant_config")
_EXPECTED = {"object": "an object", "array": "a list", "string": "text"}


def schema(name: str) -> dict[str, Any]:
    """The JSON Schema of that name, one of ``NAMES``."""
    text = files(__package__).joinpath("schemas").joinpath(f"{name}.schema.json").read_text(encoding="utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def report(name: str, document: object) -> list[Fault]:
    """Everything that schema ``name`` finds wrong in ``document``, each fault once."""
    found = (fault for error in _validator(name).iter_errors(document) for fault in _faults(error))
    return list(dict.fromkeys(found))


@cache
def _validator(name: str) -> Any:
    """A compiled validator. Its type and its errors' are ``Any``: the stubs of jsonschema leave all optional."""
    from jsonschema import Draft202012Validator
    from jsonschema.validators import extend
    from referencing import Registry
    from referencing.jsonschema import DRAFT202012

    checker = Draft202012Validator.TYPE_CHECKER.redefine("object", lambda _, value: is_object(value))
    # Without "$schema": it would make jsonschema go on with its own class, and its own idea of an object.
    contents = {each: {key: value for key, value in schema(each).items() if key != "$schema"} for each in NAMES}
    registry: Registry[Any] = Registry().with_resources(
        (f"{each}.schema.json", DRAFT202012.create_resource(content)) for each, content in contents.items()
    )
    strict: Any = extend(Draft202012Validator, type_checker=checker)  # type: ignore[no-untyped-call]
    return strict(contents[name], registry=registry)


def _faults(error: Any) -> Iterator[Fault]:
    keys = tuple(error.absolute_path)
    if "propertyNames" in error.absolute_schema_path:
        about = error.schema
        yield (*keys, error.instance), f"{shown(error.instance)} is no {about['title']}: {about['description']}"
    elif error.validator == "additionalProperties":
        yield from _unknown(keys, error)
    elif error.validator == "required":
        yield from _missing(keys, error)
    elif error.validator == "minProperties":
        yield keys, f"must not be empty; for example {_example(error.schema)}"
    else:
        expected = _EXPECTED[error.validator_value]
        yield keys, f"must be {expected}, not {_found(error.instance)}; for example {_example(error.schema)}"


def _unknown(keys: Keys, error: Any) -> Iterator[Fault]:
    known = list(error.schema["properties"])
    allowed = [*known, "x-..."] if "patternProperties" in error.schema else known
    for key in error.instance:
        if key not in known and not (key.startswith("x-") and allowed != known):
            near = get_close_matches(key[:99], known, 1)
            hint = f" (did you mean {shown(near[0])}?)" if near else ""
            yield (*keys, key), f"unknown key {shown(key)}{hint}: remove it; allowed are {listing(allowed)}"


def _missing(keys: Keys, error: Any) -> Iterator[Fault]:
    for key in error.validator_value:
        if key not in error.instance:
            example = _example(error.schema["properties"][key])
            yield keys, f"key {shown(key)} is missing; for example {json.dumps(key)}: {example}"


def _found(value: object) -> str:
    odd = isinstance(value, dict) and not all(isinstance(key, str) for key in value)
    return "an object with keys that are not text" if odd else kind(value)


def _example(about: dict[str, Any]) -> str:
    return json.dumps(about["examples"][0])
