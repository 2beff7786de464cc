"""From the text of a configuration file to one record per tenant, or to all that is wrong with it."""

from __future__ import annotations

import copy
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest

from tenant_router import config_file
from tenant_router.config_file import ConfigFile, check_record, document, parse, read, report
from tenant_router.exceptions import RecordInvalid
from tenant_router.identity import RULE

DOCS = Path(__file__).parents[2] / "docs" / "configuration-file.md"
NAMES: dict[str, Any] = {
    "templates": {"django_orm": ["default", "analytics"], "es_orm": {"default"}},
    "reserved": {"django_orm": {"central_db"}},
    "cache_templates": ("default", "pages"),
    "cache_reserved": ("central",),
}
RECORD: dict[str, Any] = {
    "orm_config": {
        "django_orm": {"default": {"NAME": "acme", "OPTIONS": {"pool": True}}, "analytics": {}},
        "es_orm": {"default": {"HOSTS": [{"host": "h", "port": 9200}]}},
    },
    "cache_config": {"default": {"LOCATION": "x"}},
    "x-note": {"any": ["thing"]},
}
AT = "$.tenant_config['a.test.com'].svc"


def file_of(**tenants: Any) -> dict[str, Any]:
    """A file whose tenant ``a`` is ``a.test.com``."""
    return {"mapping_metadata": {}, "tenant_config": {f"{name}.test.com": each for name, each in tenants.items()}}


def load(document: Any, **names: Any) -> ConfigFile:
    return parse(json.dumps(document), service="svc", **{**NAMES, **names})


def problems(document: Any, **names: Any) -> list[tuple[str, str]]:
    text = document if isinstance(document, (str, bytes)) else json.dumps(document)
    with pytest.raises(RecordInvalid) as caught:
        parse(text, service="svc", **{**NAMES, **names})
    return list(caught.value.problems)


def record_with(*path: str, value: Any = ...) -> dict[str, Any]:
    """``RECORD`` with ``value`` at ``path``; ``...`` removes what is there."""
    record = copy.deepcopy(RECORD)
    target = record
    for key in path[:-1]:
        target = target[key]
    if value is ...:
        del target[path[-1]]
    else:
        target[path[-1]] = value
    return record


# --- good files -----------------------------------------------------------------------


def test_records_of_this_service() -> None:
    loaded = load(file_of(a={"svc": RECORD, "billing": RECORD}, b={"billing": {"orm_config": {}}}))
    assert loaded == ConfigFile(
        records={"a.test.com": RECORD},
        mapping_metadata={},
        skipped={"billing": ["a.test.com", "b.test.com"]},
    )


def test_mapping_metadata_is_returned() -> None:
    mapping = {"POSTGRES_URL": "orm_config_django_orm_default"}
    assert load({"mapping_metadata": mapping}) == ConfigFile({}, mapping, {})
    assert load({"mapping_metadata": {}, "tenant_config": {}}) == ConfigFile({}, {}, {})


def test_the_result_is_frozen() -> None:
    with pytest.raises(AttributeError):
        load({"mapping_metadata": {}}).records = {}  # type: ignore[misc]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_bytes(encoding: str) -> None:
    text = json.dumps(file_of(a={"svc": RECORD}), ensure_ascii=False)
    assert parse(text.encode(encoding), service="svc", **NAMES).records == {"a.test.com": RECORD}


def test_caches_and_orms_without_templates_may_be_absent() -> None:
    record: dict[str, Any] = {"orm_config": {}}
    assert load(file_of(a={"svc": record}), templates={"es_orm": []}).records == {"a.test.com": record}


def test_the_example_of_the_documentation() -> None:
    example = re.findall(r"```json\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)[0]
    names = {"templates": {"django_orm": ["default"]}, "reserved": {}, "cache_templates": ["default"]}
    loaded = parse(example, service="my_service", **{**NAMES, **names})
    assert list(loaded.records) == ["tenant-1.test.com", "tenant-2.test.com"]
    assert loaded.mapping_metadata == {"POSTGRES_URL": "orm_config_django_orm_default"}
    assert loaded.skipped == {"billing": ["tenant-2.test.com"]}


def test_the_errors_of_the_documentation() -> None:
    record: dict[str, Any] = {
        "orm_config": {"django_orm": {"default": {}, "central_db": {}}},
        "cache_config": {"default": {"BACKEND": 1}},
    }
    tenants = {"tenant-1.test.com": {"my_service": record}, "tenant-2.test.com": {"my_service": None}}
    with pytest.raises(RecordInvalid) as caught:
        parse(
            json.dumps({"mapping_metadata": {}, "tenant_config": tenants}),
            service="my_service",
            **{**NAMES, "templates": {"django_orm": ["default"]}},
        )
    lines = "".join(f"{path}: {what}\n" for path, what in caught.value.problems)
    assert f"```\n{lines}```" in DOCS.read_text(encoding="utf-8")


# --- faults of the file ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", 'the file is empty; the least it can hold is {"mapping_metadata": {}}'),
        ("{,}", "not valid JSON at line 1, column 2: Expecting property name enclosed in double quotes"),
        ("{}\nx", "the JSON document ends before the file does: remove what begins at line 2, column 1"),
        (b"\xff\xfe\xfa", "byte 3 is no text in UTF-16: save the file as UTF-8"),
        ("[" * 100_000, "nested too deeply at line 1, column 65: at most 64 levels are allowed"),
        ("null", 'must be an object, not null; for example {"mapping_metadata": {}, "tenant_config": {}}'),
        ("{}", "key 'mapping_metadata' is missing; for example \"mapping_metadata\": {}"),
    ],
)
def test_no_configuration_file(text: str | bytes, what: str) -> None:
    assert problems(text) == [("$", what)]


def test_repeated_keys_are_told_with_the_other_faults() -> None:
    text = '{"mapping_metadata": {"k": 1, "k": NaN}, "tenant_config": {"A": {"svc": null}, "A": {"svc": {}}}}'
    assert [path for path, _ in problems(text)] == [
        *("$.mapping_metadata.k", "$.mapping_metadata.k", "$.mapping_metadata.k"),
        *("$.tenant_config.A", "$.tenant_config.A", "$.tenant_config.A.svc"),
    ]


def test_the_unwrapped_form_is_refused_with_the_wrapped_one() -> None:
    unwrapped = {"tenant-1.test.com": {"svc": RECORD}, "tenant-2.test.com": {"svc": RECORD}}
    what = (
        "tenants stand under the key 'tenant_config', not at the top level: write "
        '{"mapping_metadata": {}, "tenant_config": {"tenant-1.test.com": {"svc": {...}}}}'
    )
    assert problems(unwrapped) == problems({"mapping_metadata": {}, **unwrapped}) == [("$", what)]


def test_a_misspelt_key_is_not_taken_for_a_tenant() -> None:
    document = {"mapping_metadata": {}, "tenant_confg": {"a.test.com": {"svc": RECORD}}}
    ((path, what),) = problems(document)
    assert path == "$.tenant_confg"
    assert what.startswith("unknown key 'tenant_confg' (did you mean 'tenant_config'?)")


def test_a_tenant_beside_tenant_config() -> None:
    document = file_of(a={"svc": RECORD}) | {"b.test.com": {"svc": RECORD}}
    ((path, what),) = problems(document)
    assert path == "$['b.test.com']"
    assert what == "unknown key 'b.test.com': remove it; allowed are 'mapping_metadata', 'tenant_config'"


def test_sections_of_other_services_only() -> None:
    what = (
        "no tenant has a section for the service 'svc' (there are: 'billing', 'mail'): "
        "add one, or correct TENANT_ROUTER_SERVICE_NAME"
    )
    assert problems(file_of(a={"mail": RECORD}, b={"billing": RECORD})) == [("$.tenant_config", what)]


def test_sections_of_other_services_are_checked_for_their_shape_only() -> None:
    foreign = {"orm_config": {"some_orm": {"some_alias": {}}}, "cache_config": {"c": {"BACKEND": "b"}}}
    assert load(file_of(a={"svc": RECORD, "mail": foreign})).skipped == {"mail": ["a.test.com"]}
    assert [path for path, _ in problems(file_of(a={"svc": RECORD, "mail": []}))] == [
        "$.tenant_config['a.test.com'].mail"
    ]


def test_a_missing_service_level_is_explained() -> None:
    told = [what for path, what in problems(file_of(a={"svc": RECORD}, b=RECORD)) if path.endswith("].orm_config")]
    assert told[0].startswith("'orm_config' is no service name: the name of a service stands between the tenant and")


def test_invalid_tenant_ids() -> None:
    document = file_of(a={"svc": RECORD})
    document["tenant_config"] |= {"B.test.com": {"svc": RECORD}, "@meta": {"svc": RECORD}}
    assert problems(document) == [
        ("$.tenant_config['@meta']", f"'@meta' is no tenant id: {RULE}"),
        ("$.tenant_config['B.test.com']", f"'B.test.com' is no tenant id: {RULE}"),
    ]


def test_two_ids_that_give_one_alias() -> None:
    names = {"templates": {"django_orm": ["x"], "es_orm": ["a_x"]}, "cache_templates": []}
    record: dict[str, Any] = {"orm_config": {"django_orm": {"x": {}}, "es_orm": {"a_x": {}}}}
    document = {"mapping_metadata": {}, "tenant_config": {"t_a": {"svc": record}, "t": {"svc": record}}}
    what = "'t' and 't_a' would share a connection alias: give one of them another id"
    assert problems(document, **names) == [("$.tenant_config.t", what)]
    document["tenant_config"]["t"] = {"mail": record}
    assert list(load(document, **names).records) == ["t_a"]


def test_the_aliases_of_caches_count_too() -> None:
    names = {"templates": {"django_orm": ["x"]}, "cache_templates": ["a_x"]}
    record: dict[str, Any] = {"orm_config": {"django_orm": {"x": {}}}}
    document = {"mapping_metadata": {}, "tenant_config": {"t": {"svc": record}, "t_a": {"svc": record}}}
    assert [path for path, _ in problems(document, **names)] == ["$.tenant_config.t_a"]


def test_faults_of_all_tenants_in_the_order_of_their_paths() -> None:
    document = file_of(b={"svc": {"y": 1}}, a={"svc": record_with("orm_config", "es_orm")}, c={"svc": RECORD})
    assert [path for path, _ in problems(document)] == [
        "$.tenant_config['a.test.com'].svc.orm_config.es_orm",
        "$.tenant_config['b.test.com'].svc",
        "$.tenant_config['b.test.com'].svc.y",
    ]


# --- faults of one record -------------------------------------------------------------

RECORD_FAULTS = [
    (
        record_with("orm_config", "mongo", value={}),
        "orm_config.mongo",
        "unknown ORM 'mongo': TENANT_ROUTER_ORM_SETTINGS has 'django_orm', 'es_orm'",
    ),
    (
        record_with("orm_config", "django_orm", "other", value={}),
        "orm_config.django_orm.other",
        "unknown template alias 'other': 'django_orm' has 'analytics', 'default'",
    ),
    (
        record_with("orm_config", "django_orm", "central_db", value={}),
        "orm_config.django_orm.central_db",
        "'central_db' is a reserved alias: its configuration stays in settings, remove it",
    ),
    (
        record_with("orm_config", "django_orm", "analytics"),
        "orm_config.django_orm",
        "template alias 'analytics' is missing: every one of 'django_orm' must be given, "
        'for example "analytics": {...}',
    ),
    (
        record_with("orm_config", "es_orm"),
        "orm_config.es_orm",
        "template alias 'default' is missing: every one of 'es_orm' must be given, for example \"default\": {...}",
    ),
    (
        record_with("cache_config", "other", value={}),
        "cache_config.other",
        "unknown template alias 'other': CACHES has 'default', 'pages'",
    ),
    (
        record_with("cache_config", "central", value={}),
        "cache_config.central",
        "'central' is a reserved alias: its configuration stays in settings, remove it",
    ),
    (
        record_with("cache_config", "default", "BACKEND", value="b"),
        "cache_config.default.BACKEND",
        "BACKEND is that of the template in settings for every tenant: remove the key",
    ),
    (
        record_with("orm_config", "django_orm", value=[]),
        "orm_config.django_orm",
        'must be an object, not a list; for example {"default": {"NAME": "acme"}}',
    ),
    (
        record_with("cache_config", value=None),
        "cache_config",
        'must be an object, not null; for example {"default": {"LOCATION": "..."}}',
    ),
    (
        record_with("caches", value={}),
        "caches",
        "unknown key 'caches': remove it; allowed are 'cache_config', 'labels', 'orm_config', 'x-...'",
    ),
    (
        record_with("orm_config"),
        "",
        'key \'orm_config\' is missing; for example "orm_config": {"django_orm": {"default": {"NAME": "acme"}}}',
    ),
    (
        None,
        "",
        'must be an object, not null; for example {"orm_config": {"django_orm": {"default": {"NAME": "acme"}}}}',
    ),
]


@pytest.mark.parametrize(("record", "path", "what"), RECORD_FAULTS)
def test_record_faults(record: Any, path: str, what: str) -> None:
    assert check_record(record, **NAMES) == [(path, what)]
    assert problems(file_of(a={"svc": record})) == [(f"{AT}.{path}".removesuffix("."), what)]


def test_a_good_record() -> None:
    assert check_record(RECORD, **NAMES) == []


def test_a_record_that_json_cannot_express() -> None:
    record = record_with("orm_config", "django_orm", value={7: {}})
    found = check_record(record, **NAMES)
    assert found[0][0] == "orm_config.django_orm"
    assert found[0][1].startswith("must be an object, not an object with keys that are not text; for example")


def test_an_alias_that_is_both_template_and_reserved_is_reserved() -> None:
    names = {**NAMES, "cache_reserved": ["default"]}
    assert [path for path, _ in check_record(RECORD, **names)] == ["cache_config.default"]


# --- secrets --------------------------------------------------------------------------

CANARY = "s3cret-canary"


@pytest.mark.parametrize(
    "place",
    [
        ("mapping_metadata", "K"),
        ("mapping_metadata",),
        ("tenant_config",),
        ("tenant_config", "a.test.com"),
        ("tenant_config", "a.test.com", "svc"),
        ("tenant_config", "a.test.com", "svc", "y"),
        ("tenant_config", "a.test.com", "svc", "orm_config"),
        ("tenant_config", "a.test.com", "svc", "orm_config", "django_orm"),
        ("tenant_config", "a.test.com", "svc", "orm_config", "django_orm", "central_db"),
        ("tenant_config", "a.test.com", "svc", "cache_config", "default", "BACKEND"),
        ("top",),
    ],
)
@pytest.mark.parametrize("value", [CANARY, [CANARY], {"PASSWORD": CANARY}, {"x": {"orm_config": CANARY}}])
def test_no_value_is_shown(place: tuple[str, ...], value: Any) -> None:
    document: dict[str, Any] = file_of(a={"svc": copy.deepcopy(RECORD)})
    target = document
    for key in place[:-1]:
        target = target[key]
    target[place[-1]] = value
    document.setdefault("extra", CANARY)
    with pytest.raises(RecordInvalid) as caught:
        load(document)
    assert CANARY not in str(caught.value)
    assert CANARY not in repr(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        f'{{"PASSWORD": "{CANARY}',
        f'{{"PASSWORD": "{CANARY}\\q"}}',
        f'{{"PASSWORD": "{CANARY}\\u12"}}',
        f'{{"PASSWORD": "{CANARY}\n"}}',
        f'{{"PASSWORD": {CANARY}}}',
        f'{{"PASSWORD": "a"}} {CANARY}',
        f'{{"PASSWORD": "{CANARY}", "PASSWORD": "{CANARY}"}}',
        f'{{"PASSWORD": "{CANARY}'.encode() + b'\xff"}',
    ],
)
def test_no_text_is_shown(text: str | bytes) -> None:
    with pytest.raises(RecordInvalid) as caught:
        parse(text, service="svc", **NAMES)
    assert CANARY not in str(caught.value)
    assert caught.value.__context__ is None


# --- reading --------------------------------------------------------------------------


def unread(path: str, base_dir: Path) -> str:
    with pytest.raises(RecordInvalid) as caught:
        read(path, base_dir, io.BytesIO(b"not asked for"))
    ((where, what),) = caught.value.problems
    assert where == ""
    assert "\n" not in what
    return what


def test_where_a_file_is_looked_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, here = tmp_path / "base", tmp_path / "here"
    for folder in (base, here):
        folder.mkdir()
        (folder / "c.json").write_text(folder.name)
    monkeypatch.chdir(here)
    stdin = io.BytesIO(b"stdin")
    assert read("c.json", base, stdin) == b"base"
    assert read("./c.json", base, stdin) == b"here"
    assert read(str(here / "c.json"), base, stdin) == b"here"
    assert read("-", base, stdin) == b"stdin"


def test_what_cannot_be_read(tmp_path: Path) -> None:
    looked_up = " (a bare file name is looked up in BASE_DIR)"
    missing = tmp_path / "no.json"
    assert unread("no.json", tmp_path) == f"cannot read '{missing}': No such file or directory{looked_up}"
    assert unread(str(missing), Path("/")) == f"cannot read '{missing}': No such file or directory"
    assert unread(f"{tmp_path}/", Path("/")) == f"cannot read '{tmp_path}': Is a directory"
    assert unread("", tmp_path) == f"cannot read '{tmp_path}': Is a directory{looked_up}"
    assert "embedded null byte" in unread("a\0b", tmp_path)
    assert "File name too long" in unread("a" * 5_000, tmp_path)


def test_no_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    assert unread("/c.json", tmp_path) == "cannot read '/c.json': Permission denied"


def test_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert config_file.MAX_FILE_SIZE == 268_435_456
    monkeypatch.setattr(document, "MAX_FILE_SIZE", 1_000)
    path = tmp_path / "c.json"
    path.write_bytes(b"x" * 1_000)
    assert read("c.json", tmp_path, io.BytesIO()) == read("-", tmp_path, io.BytesIO(b"x" * 1_000))
    path.write_bytes(b"x" * 1_001)
    assert unread("c.json", tmp_path) == f"'{path}' is larger than 1,000 bytes: load it in several parts"
    with pytest.raises(RecordInvalid, match=r"^standard input is larger than 1,000 bytes: load it in several parts$"):
        read("-", tmp_path, io.BytesIO(b"x" * 1_001))


def test_an_endless_file_ends_at_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document, "MAX_FILE_SIZE", 1_000)
    assert unread("/dev/zero", Path("/")) == "'/dev/zero' is larger than 1,000 bytes: load it in several parts"


# --- speed ----------------------------------------------------------------------------


def test_ten_thousand_tenants(monkeypatch: pytest.MonkeyPatch) -> None:
    """A good file of any size is decided by the plain checker alone: jsonschema would take minutes."""

    def slow(*_: object) -> None:
        pytest.fail("a good file was handed to jsonschema")

    monkeypatch.setattr(report, "report", slow)
    text = json.dumps(file_of(**{f"t{number}": {"svc": RECORD} for number in range(10_000)}))
    assert len(parse(text, service="svc", **NAMES).records) == 10_000
