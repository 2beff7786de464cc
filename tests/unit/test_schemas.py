"""The structure of a file and of a record: plain code and JSON Schema agree, and faults are told plainly."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from tenant_router.config_file import strict_json
from tenant_router.config_file.paths import kind, listing, render, shown
from tenant_router.config_file.report import NAMES, report, schema
from tenant_router.config_file.schema import check, faults
from tenant_router.config_file.structure import IS_VALID
from tenant_router.exceptions import RecordInvalid
from tenant_router.identity import MAX_TENANT_ID, RULE

RECORD: dict[str, Any] = {
    "orm_config": {"django_orm": {"default": {"NAME": "acme"}}},
    "cache_config": {"default": {"LOCATION": "x"}},
    "labels": ["gold"],
    "x-note": [1, None],
}
FILE: dict[str, Any] = {"mapping_metadata": {"K": "p"}, "tenant_config": {"a.test.com": {"svc": RECORD}}}
SECTION = '{"orm_config": {"django_orm": {"default": {"NAME": "acme"}}}}'
SERVICES = '{"my_service": {"orm_config": {"django_orm": {"default": {"NAME": "acme"}}}}}'
TENANTS = '{"acme.example.com": {"my_service": {"orm_config": {"django_orm": {"default": {"NAME": "acme"}}}}}}'

LEAVES = st.none() | st.booleans() | st.integers(0, 3) | st.floats(0, 1) | st.sampled_from(["", "x", "a.b"])
KEYS = st.sampled_from(
    [
        "mapping_metadata",
        "tenant_config",
        "orm_config",
        "cache_config",
        "labels",
        "x-",
        "x-n",
        "y",
        "a",
        "A",
        "a\n",
        "a..b",
        "",
        7,
    ]
) | st.text("aZ9.-_é\n", max_size=4)
ANYTHING = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(KEYS, inner, max_size=3))


def changed(document: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    """A copy with ``value`` at ``path``; ``...`` removes what is there."""
    result = copy.deepcopy(document)
    target = result
    for key in path[:-1]:
        target = target[key]
    if value is ...:
        del target[path[-1]]
    else:
        target[path[-1]] = value
    return result


def paths_of(node: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = node.items() if isinstance(node, dict) else ()
    return [at, *(path for key, value in inner for path in paths_of(value, (*at, key)))]


@st.composite
def nearly(draw: st.DrawFn, document: dict[str, Any]) -> Any:
    """``document`` with up to three places replaced, removed, or with a key added."""
    for _ in range(draw(st.integers(0, 3))):
        path = draw(st.sampled_from([path for path in paths_of(document) if path] or [("mapping_metadata",)]))
        path = draw(st.sampled_from([path, (*path[:-1], draw(KEYS))]))
        exists = path in paths_of(document)
        document = changed(document, path, draw((ANYTHING | st.just(...)) if exists else ANYTHING))
    return document


@settings(deadline=None, max_examples=400)
@given(st.sampled_from(NAMES), nearly(RECORD) | nearly(FILE) | ANYTHING)
def test_the_plain_code_is_the_json_schema(name: str, document: Any) -> None:
    assert IS_VALID[name](document) == (not report(name, document))


@settings(deadline=None, max_examples=400)
@given(st.text("aZ9.-_é\n ", max_size=6) | st.integers(250, 256).map(lambda size: "a" * size))
def test_both_know_the_same_tenant_ids(tenant_id: str) -> None:
    document = {"mapping_metadata": {}, "tenant_config": {tenant_id: {"svc": RECORD}}}
    assert IS_VALID["tenant_config"](document) == (not report("tenant_config", document))


@pytest.mark.parametrize(("name", "document"), [("record", RECORD), ("tenant_config", FILE)])
def test_good(name: str, document: Any) -> None:
    assert check(name, document) == []
    assert faults(name, document) == report(name, document) == []


@pytest.mark.parametrize("name", NAMES)
def test_the_schemas_are_schemas_and_documented(name: str) -> None:
    Draft202012Validator.check_schema(schema(name))
    pending = [schema(name)]
    while pending:
        about = pending.pop()
        assert about["title"]
        assert about["description"]
        inner = [*about.get("properties", {}).values(), about.get("additionalProperties"), about.get("propertyNames")]
        pending += [each for each in inner if isinstance(each, dict) and "$ref" not in each]
        for example in about.get("examples", []) if about.get("title") in ("Record", "Configuration file") else []:
            assert check(name, example) == []


def test_the_schema_states_the_rule_of_tenant_ids() -> None:
    names = schema("tenant_config")["properties"]["tenant_config"]["propertyNames"]
    assert names["description"] == RULE
    assert names["maxLength"] == MAX_TENANT_ID


def test_unknown_schema() -> None:
    with pytest.raises(KeyError):
        check("tenant", {})


@pytest.mark.parametrize(
    ("path", "value", "where", "what"),
    [
        (("orm_config",), ..., "$", f"key 'orm_config' is missing; for example \"orm_config\": {SECTION[15:-1]}"),
        (("orm_config",), [], "$.orm_config", f"must be an object, not a list; for example {SECTION[15:-1]}"),
        (
            ("orm_config", "django_orm"),
            "x",
            "$.orm_config.django_orm",
            'must be an object, not text; for example {"default": {"NAME": "acme"}}',
        ),
        (
            ("orm_config", "django_orm", "default"),
            None,
            "$.orm_config.django_orm.default",
            'must be an object, not null; for example {"NAME": "acme", "USER": "acme"}',
        ),
        (
            ("orm_config", "django_orm", "default"),
            {1: 2},
            "$.orm_config.django_orm.default",
            "must be an object, not an object with keys that are not text; "
            'for example {"NAME": "acme", "USER": "acme"}',
        ),
        (("labels",), {"a": "b"}, "$.labels", 'must be a list, not an object; for example ["gold", "europe"]'),
        (
            ("cache_config",),
            True,
            "$.cache_config",
            'must be an object, not true or false; for example {"default": {"LOCATION": "..."}}',
        ),
        (
            ("cache_config", "default"),
            5,
            "$.cache_config.default",
            'must be an object, not a number; for example {"LOCATION": "..."}',
        ),
        (
            ("cache_confg",),
            {},
            "$.cache_confg",
            "unknown key 'cache_confg' (did you mean 'cache_config'?): remove it; "
            "allowed are 'cache_config', 'labels', 'orm_config', 'x-...'",
        ),
    ],
)
def test_record_faults(path: tuple[str, ...], value: Any, where: str, what: str) -> None:
    assert check("record", changed(RECORD, path, value)) == [(where, what)]


@pytest.mark.parametrize(
    ("path", "value", "where", "what"),
    [
        (
            ("mapping_metadata",),
            ...,
            "$",
            "key 'mapping_metadata' is missing; for example \"mapping_metadata\": {}",
        ),
        (("mapping_metadata",), None, "$.mapping_metadata", "must be an object, not null; for example {}"),
        (
            ("mapping_metadata", "K"),
            4,
            "$.mapping_metadata.K",
            'must be text, not a number; for example "orm_config_django_orm_default"',
        ),
        (("extra",), 1, "$.extra", "unknown key 'extra': remove it; allowed are 'mapping_metadata', 'tenant_config'"),
        (
            ("tenant_confg",),
            1,
            "$.tenant_confg",
            "unknown key 'tenant_confg' (did you mean 'tenant_config'?): remove it; "
            "allowed are 'mapping_metadata', 'tenant_config'",
        ),
        (("x-note",), 1, "$['x-note']", None),
        (("tenant_config",), [], "$.tenant_config", f"must be an object, not a list; for example {TENANTS}"),
        (("tenant_config",), None, "$.tenant_config", f"must be an object, not null; for example {TENANTS}"),
        (
            ("tenant_config", "A.test.com"),
            {"svc": RECORD},
            "$.tenant_config['A.test.com']",
            f"'A.test.com' is no tenant id: {RULE}",
        ),
        (("tenant_config", "a" * 254), {"svc": RECORD}, None, f"'{'a' * 77}...' is no tenant id: {RULE}"),
        (
            ("tenant_config", "a.test.com"),
            "x",
            "$.tenant_config['a.test.com']",
            f"must be an object, not text; for example {SERVICES}",
        ),
        (
            ("tenant_config", "a.test.com"),
            {},
            "$.tenant_config['a.test.com']",
            f"must not be empty; for example {SERVICES}",
        ),
        (
            ("tenant_config", "a.test.com", "svc"),
            None,
            "$.tenant_config['a.test.com'].svc",
            f"must be an object, not null; for example {SECTION}",
        ),
        (
            ("tenant_config", "a.test.com", "orm_config"),
            RECORD,
            "$.tenant_config['a.test.com'].orm_config",
            "'orm_config' is no service name: the name of a service stands between the tenant and its "
            "'orm_config' and 'cache_config'",
        ),
    ],
)
def test_file_faults(path: tuple[str, ...], value: Any, where: str | None, what: str | None) -> None:
    found = check("tenant_config", changed(FILE, path, value))
    assert len(found) == 1
    assert where in (None, found[0][0])
    assert what in (None, found[0][1])


@pytest.mark.parametrize(("document", "told"), [(None, "null"), ([], "a list"), ("x", "text"), (1.5, "a number")])
def test_the_top_level_must_be_an_object(document: Any, told: str) -> None:
    assert check("record", document) == [("$", f"must be an object, not {told}; for example {SECTION}")]
    example = '{"mapping_metadata": {}, "tenant_config": {}}'
    assert check("tenant_config", document) == [("$", f"must be an object, not {told}; for example {example}")]


def test_an_id_that_breaks_the_rule_twice_is_told_once() -> None:
    assert len(check("tenant_config", changed(FILE, ("tenant_config", "A..b"), {"svc": RECORD}))) == 1


def test_all_faults_at_once() -> None:
    assert [path for path, _ in check("record", {"cache_config": 1, "y": 2, "z": 3})] == [
        "$",
        "$.cache_config",
        "$.y",
        "$.z",
    ]


def test_nothing_slow_is_imported_before_a_fault() -> None:
    code = (
        "import sys; from tenant_router import config_file; from tenant_router.config_file import schema\n"
        "assert schema.check('record', {'orm_config': {}}) == []\n"
        "assert 'jsonschema' not in sys.modules\n"
        "assert schema.check('record', {})\n"
        "assert 'jsonschema' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# --- naming places --------------------------------------------------------------------


def test_paths() -> None:
    keys = ("tenant_config", "a.test.com", "svc", "x-n", "it's", "", 3, "\ud800")
    assert render(keys) == "$.tenant_config['a.test.com'].svc['x-n'][\"it's\"][''][3]['\\ud800']"
    assert render(("orm_config", "default"), root="") == "orm_config.default"
    assert render(("a.b",), root="") == "['a.b']"
    assert render(()) == "$"
    assert render((), root="") == ""
    assert len(render(("a" * 5_000,))) < 100


def test_names() -> None:
    assert shown("a\nb") == "'a\\nb'"
    assert shown("a" * 81) == f"'{'a' * 77}...'"
    assert listing(["b", "a"]) == "'a', 'b'"
    assert listing([]) == "none"
    assert listing("abcdefghijklmno").endswith("'l' and 3 more")


def test_kinds() -> None:
    values = [{}, [], "", True, None, 1, 1.5]
    assert [kind(value) for value in values] == [
        *("an object", "a list", "text", "true or false", "null", "a number", "a number")
    ]


# --- strict JSON ----------------------------------------------------------------------


def refusal(data: str | bytes) -> str:
    with pytest.raises(RecordInvalid) as caught:
        strict_json.loads(data)
    ((path, what),) = caught.value.problems
    assert path == "$"
    assert caught.value.__context__ is None, "the decoder's error holds the whole text"
    return what


@pytest.mark.parametrize("data", ["", " \n\t", b"", b"\xef\xbb\xbf", "\ufeff  "])
def test_empty(data: str | bytes) -> None:
    assert refusal(data) == 'the file is empty; the least it can hold is {"mapping_metadata": {}}'


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ('{"a": 1,\n  b}', "not valid JSON at line 2, column 3: Expecting property name enclosed in double quotes"),
        ('{"a": "x', "not valid JSON at line 1, column 7: Unterminated string"),
        ('{"a" 1}', "not valid JSON at line 1, column 6: Expecting ':' delimiter"),
        ("nonsense", "not valid JSON at line 1, column 1: Expecting value"),
        ('{"a": "x\ty"}', "not valid JSON at line 1, column 9: Invalid control character"),
        ('{"a": "x\\qy"}', "not valid JSON at line 1, column 9: Invalid \\escape"),
        ('{"a": 1}\n}', "the JSON document ends before the file does: remove what begins at line 2, column 1"),
        ("{} {}", "the JSON document ends before the file does: remove what begins at line 1, column 4"),
    ],
)
def test_syntax(text: str, what: str) -> None:
    assert refusal(text) == what
    assert refusal(text.encode()) == what


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_encodings(encoding: str) -> None:
    assert strict_json.loads('{"ä": "€"}'.encode(encoding)) == ({"ä": "€"}, [])
    assert strict_json.loads('\ufeff{"ä": 1}') == ({"ä": 1}, [])


def test_not_text() -> None:
    assert refusal(b'{"a": "\xff"}') == "byte 8 is no text in UTF-8: save the file as UTF-8"
    assert refusal(b"\xef\xbb\xbf\xff{}") == "byte 1 is no text in UTF-8: save the file as UTF-8"


def test_repeated_keys_at_every_level() -> None:
    text = '{"a": {"b": 1, "b": {"c": 1, "c": 2, "c": 3}}, "d": [{"e": 1, "e": 2}], "a": 2}'
    document, found = strict_json.loads(text)
    assert document == {"a": 2, "d": [{"e": 2}]}
    assert {(render(keys), what) for keys, what in found} == {
        ("$.a", "key 'a' is given 2 times: keep one of them"),
        ("$.a.b", "key 'b' is given 2 times: keep one of them"),
        ("$.a.b.c", "key 'c' is given 3 times: keep one of them"),
        ("$.d[0].e", "key 'e' is given 2 times: keep one of them"),
    }


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "9" * 301, "9" * 9_999])
def test_odd_numbers(number: str) -> None:
    _, found = strict_json.loads(f'{{"a": [1, {number}]}}')
    assert found == [
        (("a", 1), "NaN, Infinity and numbers beyond Python's range are not allowed: write a plain number")
    ]


def test_plain_numbers() -> None:
    assert strict_json.loads(f"[{'9' * 300}, -1.5, 1e3]") == ([int("9" * 300), -1.5, 1000.0], [])


@pytest.mark.parametrize(("opened", "closed"), [("[", "]"), ('{"[{": ', "}")])
def test_depth(opened: str, closed: str) -> None:
    limit = strict_json.MAX_DEPTH
    strict_json.loads(opened * limit + "1" + closed * limit)
    column = limit * len(opened) + 1
    expected = f"nested too deeply at line 1, column {column}: at most 64 levels are allowed"
    for depth in (limit + 1, 300, 200_000):
        assert refusal(opened * depth + "1" + closed * depth) == expected


def test_the_place_of_too_deep_nesting() -> None:
    text = '{\n"]]\\"": [[]],\n"b": ' + "[" * 100 + "]" * 100 + "}"
    assert refusal(text) == "nested too deeply at line 3, column 69: at most 64 levels are allowed"


def test_too_deep_under_a_repeated_key() -> None:
    text = '{"a": ' + "[" * 500 + "]" * 500 + ', "a": 1}'
    assert strict_json.loads(text)[1] == [(("a",), "key 'a' is given 2 times: keep one of them")]


@given(st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=3), inner), max_leaves=8))
def test_plain_json_is_read_as_it_is(document: Any) -> None:
    text = json.dumps(document)
    assert strict_json.loads(text) == (json.loads(text), [])
