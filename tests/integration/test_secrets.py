"""A password is shown by nothing: every output is searched for canaries."""

import copy
import io
import json
import logging
import pickle
import pprint
import traceback

import pytest
from django.conf import settings as django_settings
from django.core.management import call_command
from django.db import connection
from django.test import Client, RequestFactory, override_settings
from django.views.debug import ExceptionReporter

from tenant_router.cache.manager import CacheManager
from tenant_router.conf import MIDDLEWARE, STORE, conf
from tenant_router.config_file import parse
from tenant_router.config_store import codec
from tenant_router.config_store.base import Event, Op, StoredRecord, digest_of
from tenant_router.context_decorators import tenant_context_bind
from tenant_router.exceptions import Conflict, RecordInvalid, TenantMisconfigured, TenantUnavailable
from tenant_router.lifecycle import Writer
from tenant_router.log import redact
from tenant_router.managers import TenantContextManager, tenant_context_manager
from tenant_router.orm_backends.django_orm.manager import DjangoOrmManager
from tenant_router.reactive.building import Builder
from tenant_router.reactive.pipeline import Pipeline
from tenant_router.secrets import Secret, SecretBytes, SecretText, concealed, masked, plain, revealed

CANARY = "".join(("cana", "ry-Pa55"))  # reports show lines of source code
POSTGRES = "django.db.backends.postgresql"

# Wherever a record may have a secret, in good ones and in bad ones of every kind.
DATABASES = {
    "PASSWORD": {"NAME": "a", "PASSWORD": CANARY},
    "PASS": {"NAME": "a", "PASS": CANARY},
    "URL": {"URL": f"postgres://u:{CANARY}@h/a"},
    "URL parameter": {"URL": f"postgres://h/a?password={CANARY}"},
    "URL spelt oddly": {"URL": f"postgres://h/a?%50assword={CANARY}@x"},
    "URL with a question mark": {"URL": f"postgres://u:x?{CANARY}@h/a"},
    "URL of another scheme": {"URL": f"mysql://u:{CANARY}@h/a"},
    "no URL": {"URL": f"{CANARY}:x@h"},
    "of a wrong type": {"NAME": "a", "PASSWORD": [CANARY]},
    "in an option": {"NAME": "a", "OPTIONS": {"password": CANARY}},
    "in an option's dictionary": {"NAME": "a", "OPTIONS": {"pool": {"kwargs": {"password": CANARY}}}},
    "under a misspelt key": {"NAME": "a", "PASWORT": CANARY},
    "beside a fault": {"NAME": 5, "PASSWORD": CANARY},
    "in the name": {"NAME": f"host=h password={CANARY}"},
    "with a control character": {"NAME": "a", "PASSWORD": f"{CANARY}\n"},
}
CACHE = {
    "location": {"LOCATION": f"redis://:{CANARY}@h/0"},
    "location's parameter": {"LOCATION": f"redis://h/0?password={CANARY}"},
    "list": {"LOCATION": [f"redis://u:{CANARY}@h/0"]},
    "option": {"OPTIONS": {"password": CANARY}},
    "unknown": {"SECRET_COLOUR": CANARY},
    "bad": {"LOCATION": f"http://u:{CANARY}@h/0", "VERSION": -1},
}
RECORDS = [{"orm_config": {"django_orm": {"default": config}}} for config in DATABASES.values()]
ALONE = {"orm_config": {"django_orm": {"default": {"NAME": "a"}}}}
RECORDS += [{**ALONE, "cache_config": {"default": config}} for config in CACHE.values()]
IDS = [*DATABASES, *(f"cache: {name}" for name in CACHE)]


def report(error):
    """Everything that Django's error pages, text and HTML, with and without DEBUG, show of an exception.

    Without the frame of the test itself, which knows the canary.
    """
    pages = []
    error = error.with_traceback(error.__traceback__.tb_next)
    for debug in (True, False):
        with override_settings(DEBUG=debug):
            reporter = ExceptionReporter(RequestFactory().get("/"), type(error), error, error.__traceback__)
            pages += [reporter.get_traceback_text(), reporter.get_traceback_html()]
    return "".join([*pages, "".join(traceback.format_exception(error)), repr(error), str(pickle.dumps(error))])


@pytest.fixture
def builder(router):
    """A builder for tenants in PostgreSQL with a cache in Redis, which needs neither to prepare them."""
    templates = {"default": {"ENGINE": POSTGRES, "NAME": "template", "PASSWORD": f"template-{CANARY}"}}
    caches = {"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": f"redis://:{CANARY}@h"}}
    with override_settings(CACHES=caches):
        conf.hide_secrets()
        orm = DjangoOrmManager("django_orm", templates, {})
        yield Builder({"django_orm": orm}, CacheManager(()), router.serializer, lambda record: [])


def stored(router, record):
    body = codec.encode("a.test", record, router.serializer)
    return StoredRecord(1, "A", digest_of(body), body)


@pytest.mark.parametrize("record", RECORDS, ids=IDS)
def test_neither_what_is_built_nor_why_it_is_refused_shows_a_secret(router, builder, record, caplog):
    held = stored(router, record)
    shown = [repr(held), pprint.pformat([held, Op("a.test", "A", held.body)])]
    decoded = codec.decode("a.test", held.body, router.serializer)
    shown += [pprint.pformat(redact(decoded)), str(redact(decoded))]
    shown += [pprint.pformat(decoded), str(decoded), repr(copy.deepcopy(decoded))]
    try:
        context = builder.build("a.test", held, None)
    except RecordInvalid as error:
        shown.append(report(error))
    else:
        databases, cache = context.parts["django_orm"], context.parts["cache"]["default"]
        shown += [pprint.pformat(context.parts), pprint.pformat(dict(databases["default"].settings))]
        shown += [pprint.pformat(cache.settings), pprint.pformat(cache.params), repr(cache.location)]
    assert CANARY not in "".join(shown)
    assert CANARY not in caplog.text


def test_what_a_driver_reads_is_the_secret(router, builder):
    record = {
        "orm_config": {"django_orm": {"default": {"URL": f"postgres://u:{CANARY}@h/a?sslmode=require"}}},
        "cache_config": {"default": {"LOCATION": f"redis://:{CANARY}@h/0"}},
    }
    context = builder.build("a.test", stored(router, record), None)
    settings = context.parts["django_orm"]["default"].settings
    assert settings["PASSWORD"] == CANARY
    assert str(settings["PASSWORD"]) == f"{settings['PASSWORD']}" == CANARY
    assert isinstance(settings["PASSWORD"], str)
    assert context.parts["cache"]["default"].location == f"redis://:{CANARY}@h/0"


class Fails(DjangoOrmManager):
    """A manager of somebody's own, with a fault in it."""

    def prepare(self, tenant_id, config, previous):
        password = config["default"]["PASSWORD"]
        raise ValueError(f"cannot use {password}")


def test_a_manager_that_fails_on_a_record_tells_where_and_no_value(router, caplog):
    manager = Fails("django_orm", {"default": {"ENGINE": POSTGRES, "NAME": "x"}}, {})
    failing = Builder({"django_orm": manager}, router.caches, router.serializer, lambda record: [])
    record = stored(router, RECORDS[0])
    pipeline = Pipeline(TenantContextManager(), failing, 10)
    pipeline.take([Event(record.rev, "a.test", record.state, record.digest, "")], lambda ids: {"a.test": record})
    with pytest.raises(TenantUnavailable, match="failed with ValueError") as refused:
        pipeline.load("a.test", lambda ids: {"a.test": record})
    assert CANARY not in report(refused.value)
    assert CANARY not in caplog.text
    assert "test_secrets.py" in caplog.text


UNREADABLE = {
    "cut off": b'T1|json|%s|{"PASSWORD": "%s"',
    "garbage": b"%s%s",
    "another tenant's": b'T1|json|%s|{"v": 1, "id": "b", "PASSWORD": "%s"}',
}


@pytest.mark.parametrize("body", UNREADABLE.values(), ids=UNREADABLE)
def test_a_record_that_cannot_be_read_shows_none_of_it(router, builder, body):
    body = body % (b"0" * 32, CANARY.encode())
    held = StoredRecord(1, "A", digest_of(body), body)
    with pytest.raises(Exception) as refused:
        builder.build("a.test", held, None)
    assert CANARY not in report(refused.value)


@pytest.mark.parametrize("record", RECORDS, ids=IDS)
def test_a_writer_shows_no_secret(router, record):
    document = {"mapping_metadata": {}, "tenant_config": {"a.test": {"tests": record}}}
    names = {"templates": router.templates(), "reserved": router.reserved()}
    names |= {"cache_templates": ["default"], "cache_reserved": ["central"]}
    loaded = parse(json.dumps(document), service="tests", **names)
    assert CANARY not in pprint.pformat(loaded)
    assert plain(loaded.records) == {"a.test": record}
    try:
        shown = pprint.pformat(Writer(router).plan(loaded.records, {}, flush=False))
    except RecordInvalid as error:
        shown = report(error)
    assert CANARY not in shown


@pytest.mark.parametrize("verbosity", [0, 3])
def test_the_commands_show_no_secret(tenants, verbosity, caplog):
    config = {**tenants.record("a")["orm_config"]["django_orm"]["default"], "PASSWORD": CANARY}
    record = {"orm_config": {"django_orm": {"default": config}}, "x-note": f"redis://h?password={CANARY}"}
    tenants.arrived("a.test", tenants.put("a.test", record))
    tenants.arrived("b.test", tenants.put("b.test", RECORDS[3]))
    out = io.StringIO()
    for command in (
        ["tenant", "show", "a.test"],
        ["tenant", "show", "b.test"],
        ["tenant", "list"],
        ["tenant_store", "show"],
        ["migrate_all"],
        ["diffsettings", "--all"],
        ["check"],
        ["showmigrations", "--tenant-id", "a.test"],
    ):
        try:
            call_command(*command, stdout=out, stderr=out, verbosity=verbosity)
        except (Exception, SystemExit) as error:
            out.write(f"{error!r} {error}")
    assert "***" in out.getvalue()
    assert CANARY not in out.getvalue()
    assert CANARY not in caplog.text


@pytest.mark.parametrize("debug", [True, False])
def test_a_request_of_a_tenant_whose_record_is_refused_shows_no_secret(tenants, debug, caplog):
    record = {"orm_config": {"django_orm": {"default": {"NAME": 5, "PASSWORD": CANARY, "PASWORT": CANARY}}}}
    tenants.arrived("a.test", tenants.put("a.test", record))
    with override_settings(DEBUG=debug):
        answer = Client(raise_request_exception=False).get("/", headers={"host": "a.test"})
    assert answer.status_code == 503
    assert CANARY not in answer.content.decode()
    assert CANARY not in caplog.text
    with pytest.raises(TenantMisconfigured) as refused:
        tenant_context_manager.get_by_id("a.test")
    assert CANARY not in report(refused.value)
    described = tenants.runtime.describe()
    assert CANARY not in described.encoded()


def boom(request):
    store, used = conf.store, conf.store_options  # variables of a frame, which reports show
    middleware, settings = conf.middleware, getattr(django_settings, STORE)
    raise ValueError(f"{len(store)} {len(used)} {len(middleware)} {len(settings)}")


@pytest.fixture
def secret_settings(fresh_runtime):
    """The project's settings with a canary wherever they may have one, hidden as at start."""
    fresh_runtime()
    store = {
        **getattr(django_settings, STORE),
        "LOCATION": {"URL": f"redis://u:{CANARY}@h/0", "PASSWORD": CANARY},
        "OPTIONS": {
            "CLIENT_KWARGS": {"password": CANARY},
            "KEYS": {CANARY},
            "SERIALIZER": {"OPTIONS": {"key": CANARY}},
        },
    }
    middleware = {"HEALTH_TOKEN": CANARY}
    caches = {"default": {"BACKEND": "x", "LOCATION": f"redis://:{CANARY}@h"}}
    with override_settings(**{STORE: store, MIDDLEWARE: middleware, "CACHES": caches}):
        conf.forget()
        conf.hide_secrets()
        yield
    conf.forget()


def test_neither_diffsettings_nor_a_page_shows_the_settings_secrets(secret_settings):
    out = io.StringIO()
    call_command("diffsettings", "--all", stdout=out)
    try:
        boom(RequestFactory().get("/"))
    except ValueError as error:
        out.write(report(error))
    shown = out.getvalue() + pprint.pformat([conf.store, conf.store_options, conf.middleware, conf.serializer])
    assert "HEALTH_TOKEN" in shown
    assert CANARY not in shown
    # and those who use them find them
    assert revealed(conf.store["LOCATION"])["URL"] == f"redis://u:{CANARY}@h/0"
    assert conf.middleware["HEALTH_TOKEN"].reveal() == CANARY
    assert set(revealed(conf.store_options["KEYS"])) == {CANARY}
    assert getattr(django_settings, STORE)["LOCATION"]["PASSWORD"] == CANARY


def test_a_template_shows_no_secret(router):
    template = {"ENGINE": POSTGRES, "NAME": "x", "PASSWORD": CANARY, "OPTIONS": {"sslpassword": CANARY}}
    DjangoOrmManager("django_orm", {"default": template}, {})
    assert CANARY not in pprint.pformat(template)
    assert (template["PASSWORD"], template["OPTIONS"]["sslpassword"]) == (CANARY, CANARY)


def test_a_connection_of_a_tenant_shows_no_secret(tenants):
    config = {**tenants.record("a")["orm_config"]["django_orm"]["default"], "PASSWORD": CANARY}
    tenants.arrived("a.test", tenants.put("a.test", {"orm_config": {"django_orm": {"default": config}}}))
    with tenant_context_bind("a.test") as context:
        held = dict(connection.settings_dict)
        shown = pprint.pformat([held, connection, context, context.parts, django_settings.DATABASES])
        assert held["PASSWORD"] == CANARY
    assert CANARY not in shown


class TestTypes:
    def test_a_secret_is_opaque(self):
        secret = Secret(CANARY)
        shown = [
            str(secret),
            repr(secret),
            f"{secret}",
            f"{secret!r:>9}",
            pprint.pformat({"x": [secret]}),
        ]
        assert CANARY not in "".join(shown)
        assert secret.reveal() == CANARY
        assert secret == Secret(CANARY) != Secret("other")
        assert secret != CANARY
        assert copy.deepcopy({"x": secret})["x"] is secret
        assert not Secret("")
        with pytest.raises(TypeError):
            pickle.dumps(secret)
        with pytest.raises(TypeError):
            vars(secret)

    def test_a_text_of_a_driver_masks_its_repr_alone(self):
        text = SecretText(CANARY)
        assert (text, str(text), f"{text}", text + "x") == (CANARY, CANARY, CANARY, f"{CANARY}x")
        assert CANARY not in repr(text) + pprint.pformat({"x": [text]})
        assert copy.deepcopy({"x": text})["x"] is text
        assert pickle.loads(pickle.dumps(text)) == CANARY
        assert CANARY not in repr(pickle.loads(pickle.dumps(text)))
        assert CANARY.encode() not in repr(SecretBytes(CANARY.encode())).encode()

    def test_what_is_concealed_comes_back(self):
        value = {
            "PASSWORD": CANARY,
            "list": [f"redis://u:{CANARY}@h", {"token": CANARY, "n": 1}],
            "PASS": {"a": CANARY, "b": [CANARY, 5, None, True]},
            "KEY_PREFIX": "x",
            "empty": {"PASSWORD": ""},
            "set": {"x"},
        }
        for made in (concealed(value), masked(value)):
            assert CANARY not in pprint.pformat(made)
            assert made["KEY_PREFIX"] == "x"
            assert made["empty"]["PASSWORD"] == ""
            assert revealed(made) == value
            assert plain(made) == value
        assert type(plain(masked(value))["PASSWORD"]) is str
        assert concealed(value)["PASS"]["b"] == [Secret(CANARY), Secret(5), None, True]

    def test_names_of_orms_and_aliases_are_no_secrets(self):
        record = {"orm_config": {"django_orm": {"auth": {"NAME": "a"}, "tokens": {"NAME": "b", "PASSWORD": "c"}}}}
        record |= {"cache_config": {"keys": {"LOCATION": "x"}}, "labels": ["a:b@c"], "x-token": CANARY}
        made = codec.conceal_record(record)
        assert made["orm_config"]["django_orm"]["auth"] == {"NAME": "a"}
        assert made["orm_config"]["django_orm"]["tokens"] == {"NAME": "b", "PASSWORD": Secret("c")}
        assert made["cache_config"] == record["cache_config"]
        assert made["labels"] == record["labels"]
        assert CANARY not in str(made)


@pytest.mark.parametrize("body", [RECORDS[0], RECORDS[2]])
def test_events_and_failed_commits_show_no_secret(tenants, body):
    tenants.put("a.test", body)
    store = tenants.runtime.store
    head = store.head()
    assert CANARY not in pprint.pformat([store._log(0, 50), store.get_many(["a.test"]), head])
    writer = Writer(tenants.runtime)
    plan = writer.plan({"a.test": codec.conceal_record(tenants.record("new"))}, {}, flush=False)
    plan.ops.append(Op("b.test", "A", codec.encode("b.test", {"PASSWORD": CANARY}, tenants.runtime.serializer)))
    tenants.put("a.test", body)
    with pytest.raises(Conflict) as refused:
        writer.commit(plan)
    assert CANARY not in report(refused.value)


def test_levels_of_logging_show_no_secret(tenants, caplog):
    with caplog.at_level(logging.DEBUG):
        tenants.arrived("a.test", tenants.put("a.test", RECORDS[0]))
        tenants.arrived("a.test", tenants.put("a.test", RECORDS[8]))
        tenants.delete("a.test")
        tenants.arrived("b.test", tenants.put("b.test", RECORDS[8]))
        with pytest.raises(TenantUnavailable):
            tenant_context_manager.get_by_id("b.test")
    assert CANARY not in caplog.text
