"""A record is data: what it may say of MongoDB and Elasticsearch, and what is refused of it."""

import builtins
import inspect
import json
import re
import socket
import ssl
import time
from contextlib import contextmanager

import pytest

pytest.importorskip("pymongo")
pytest.importorskip("elasticsearch")

from elasticsearch import Elasticsearch
from hypothesis import given, settings
from hypothesis import strategies as st
from pymongo import common
from pymongo.mongo_client import MongoClient

from tenant_router.exceptions import RecordInvalid
from tenant_router.orm_backends.es_orm import allowed_options as es_options
from tenant_router.orm_backends.es_orm.manager import EsOrmManager
from tenant_router.orm_backends.es_orm.shared_client import SharedClient
from tenant_router.orm_backends.mongo import allowed_options as mongo_options
from tenant_router.orm_backends.mongo.manager import MongoManager

CANARY = "canary-Pa55"
MONGO = {"NAME": "main", "HOST": "db.test", "PORT": 27018, "USER": "u", "PASS": CANARY}
ES = {"HOSTS": ["https://es.test:9200"], "OPTIONS": {"basic_auth": ["u", CANARY]}}


class Manager(MongoManager):
    """A manager of no library in particular."""


def mongo(config, template=MONGO, **options):
    manager = Manager("x_orm", {"default": template}, options)
    return manager.prepare("a.test", {"default": config}, None)["default"].target


def es(config, template=ES, **options):
    manager = EsOrmManager("es_orm", {"default": template}, options)
    return manager.prepare("a.test", {"default": config}, None)["default"].scope.shared.cluster


def problems(build, config, *args, **options):
    with pytest.raises(RecordInvalid) as caught:
        build(config, *args, **options)
    return {path.split(".default.", 1)[1]: what for path, what in caught.value.problems}


# --- what is refused ---

MONGO_ALLOWED = {name.lower() for name in mongo_options._OPTIONS} | set(mongo_options.ALIASES)


@pytest.mark.parametrize("option", sorted(set(common.VALIDATORS) - MONGO_ALLOWED))
def test_every_other_option_of_pymongo_is_refused(option):
    """Whatever the installed version has: files, TLS weakened, classes, functions, other credentials."""
    for value in ("/etc/passwd", True, 1, {}, "os.system"):
        assert "not allowed" in problems(mongo, {"NAME": "x", "OPTIONS": {option: value}})[f"OPTIONS.{option}"]
    found = problems(mongo, {"CONN_URL": f"mongodb://h/x?{option}=true"})
    assert f"parameter {mongo_options.plain_name(option)!r}, which is not allowed" in found["CONN_URL"]


@pytest.mark.parametrize(
    "option", ["tlsCAFile", "tlsCRLFile", "tlsCertificateKeyFile", "ssl_keyfile", "ssl_certfile", "tlsInsecure",
               "tlsAllowInvalidCertificates", "tlsAllowInvalidHostnames", "ssl_cert_reqs", "ssl_match_hostname",
               "auto_encryption_opts", "document_class", "event_listeners", "server_selector", "type_registry"],
)  # fmt: skip
def test_files_weak_tls_and_code_are_among_them(option):
    assert option.lower() in set(common.VALIDATORS) - MONGO_ALLOWED


@pytest.mark.parametrize(
    "option",
    sorted(set(inspect.signature(Elasticsearch.__init__).parameters) - es_options.OPTIONS.keys() - {"self"}),
)
def test_every_other_option_of_elasticsearch_is_refused(option):
    for value in ("/etc/passwd", False, 1, {}, "os.system"):
        assert "not allowed" in problems(es, {"OPTIONS": {option: value}})[f"OPTIONS.{option}"]


@pytest.mark.parametrize(
    ("build", "option", "value"),
    [
        *((mongo, "maxPoolSize", value) for value in (0, 101, 10**7, 10**400, None, "5", True, 1.5, float("nan"))),
        *((mongo, "socketTimeoutMS", value) for value in (0, None, -1, 86_400_001)),
        *((mongo, "serverSelectionTimeoutMS", value) for value in (0, 60_001, 10**400)),
        *((mongo, "connectTimeoutMS", value) for value in (0, None, 60_001)),
        *((mongo, "waitQueueTimeoutMS", value) for value in (0, None, 60_001)),
        *((mongo, "heartbeatFrequencyMS", value) for value in (0, 1, 499)),
        *((mongo, "authMechanism", value) for value in ("PLAIN", "GSSAPI", "MONGODB-AWS", "x", 1)),
        *((mongo, "appName", value) for value in ("x" * 129, "x\n", 5)),
        *((mongo, "compressors", value) for value in ("x", "zlib,x", ["zlib"])),
        *((mongo, "readPreferenceTags", value) for value in ("dc:ny", [5], [], ["x"], ["a:b"] * 11)),
        *((mongo, "w", value) for value in (-1, 51, True, "a b", {})),
        *((mongo, "tls", value) for value in ("true", 1, None)),
        *((es, "connections_per_node", value) for value in (0, 101, 10**7, 10**400, True, "5", 2.5)),
        *((es, "request_timeout", value) for value in (0, -1, None, 3_601, float("inf"), "5")),
        *((es, "max_retries", value) for value in (-1, 21, True)),
        *((es, "retry_on_status", value) for value in (200, [200], "429", [429] * 51)),
        *((es, "sniff_timeout", value) for value in (None, 0, 11)),
        *((es, "verify_certs", value) for value in (False, 1, None)),
        *((es, "bearer_auth", value) for value in ("x\r\ny: z", "", 5, ["a", "b"])),
        *((es, "basic_auth", value) for value in (["u"], ["u", 5], {"u": "p"}, "u p")),
    ],
)
def test_a_value_out_of_bounds_is_refused(build, option, value):
    base = {"NAME": "x"} if build is mongo else {}
    found = problems(build, {**base, "OPTIONS": {option: value}})
    assert list(found) == [f"OPTIONS.{option}"]


def test_what_is_harmless_is_taken_by_the_clients_too():
    values = {
        "appName": "shop of acme", "authMechanism": "SCRAM-SHA-256", "authSource": "admin", "connectTimeoutMS": 500,
        "directConnection": True, "heartbeatFrequencyMS": 5_000, "journal": True, "localThresholdMS": 15,
        "maxIdleTimeMS": 60_000, "maxPoolSize": 10, "maxStalenessSeconds": 120, "minPoolSize": 1,
        "readConcernLevel": "majority", "readPreference": "nearest", "readPreferenceTags": ["dc:ny,rack:1", ""],
        "retryReads": True, "retryWrites": False, "serverSelectionTimeoutMS": 500,
        "socketTimeoutMS": 500, "tls": True, "tz_aware": True, "uuidRepresentation": "standard", "w": "majority",
        "waitQueueTimeoutMS": 500, "wTimeoutMS": 500, "zlibCompressionLevel": 5, "compressors": "zlib",
        "replicaSet": "rs0",
    }  # fmt: skip
    assert values.keys() == mongo_options._OPTIONS.keys()
    target = mongo({"NAME": "x", "OPTIONS": values})
    MongoClient(connect=False, **target.arguments).close()
    values = {
        "basic_auth": ["u", "p"], "connections_per_node": 5, "dead_node_backoff_factor": 1, "http_compress": True,
        "max_dead_node_backoff": 3.5, "max_retries": 0, "min_delay_between_sniffing": 5, "verify_certs": True,
        "randomize_nodes_in_pool": False, "request_timeout": 0.5, "retry_on_status": [429], "retry_on_timeout": True,
        "sniff_before_requests": False, "sniff_on_node_failure": True, "sniff_on_start": False, "sniff_timeout": 0.5,
    }  # fmt: skip
    assert values.keys() == es_options.OPTIONS.keys() - {"api_key", "bearer_auth"}
    SharedClient(es({"OPTIONS": values}), None).make().close()


def test_the_parameters_of_a_url_have_the_types_of_the_list():
    url = "mongodb://h/x?TLS=true&maxPoolSize=7&w=2&journal=1&readPreferenceTags=dc:ny&readPreferenceTags=&ssl=true"
    arguments = mongo({"CONN_URL": f"{url}&readPreference=nearest"}).arguments
    assert {name: arguments[name] for name in ("tls", "maxpoolsize", "w", "journal", "readpreferencetags")} == {
        "tls": True,
        "maxpoolsize": 7,
        "w": 2,
        "journal": True,
        "readpreferencetags": ["dc:ny", ""],
    }


@pytest.mark.parametrize(
    ("build", "config", "where", "meant"),
    [
        (mongo, {"NAME": "x", "PASSWORD": "y"}, "PASSWORD", "PASS"),
        (mongo, {"NAME": "x", "HOSTS": "y"}, "HOSTS", "HOST"),
        (mongo, {"NAME": "x", "OPTIONS": {"maxpoolsiz": 1}}, "OPTIONS.maxpoolsiz", "maxPoolSize"),
        (mongo, {"NAME": "x", "OPTIONS": {"max_pool_size": 1}}, "OPTIONS.max_pool_size", "maxPoolSize"),
        (es, {"HOST": "y"}, "HOST", "HOSTS"),
        (es, {"OPTIONS": {"requst_timeout": 1}}, "OPTIONS.requst_timeout", "request_timeout"),
        (es, {"OPTIONS": {"basicauth": ["u", "p"]}}, "OPTIONS.basicauth", "basic_auth"),
    ],
)
def test_an_unknown_key_is_told_with_the_nearest_known_one(build, config, where, meant):
    assert f"did you mean {meant!r}" in problems(build, config)[where]


@pytest.mark.parametrize(
    "hosts",
    ["h:99999", "h:0", "h:\u00b2", "h:", "h:1:2", "-h", "h..x", "a,,b", "h port", "h@x", "x" * 300, "\ud800",
     "/run/m.sock", "m.sock", "M.SOCK:1", "h,/tmp/x.sock", ["h", 5], ["h"] * 51, "[::x]", "h%41", "h\n", "\u00fc" * 60],
)  # fmt: skip
def test_what_is_no_host_of_mongodb_or_a_socket(hosts):
    assert list(problems(mongo, {"NAME": "x", "HOST": hosts})) == ["HOST"]
    if isinstance(hosts, str) and hosts.isprintable() and "@" not in hosts and hosts not in ("h port", "h%41"):
        assert list(problems(mongo, {"CONN_URL": f"mongodb://{hosts.replace('/', '%2F')}/x"})) == ["CONN_URL"]


@pytest.mark.parametrize("port", [0, -1, 65536, 10**400, "\u00b2", "x", 1.0, True, "1 ", "\uff11"])
def test_what_is_no_port(port):
    assert list(problems(mongo, {"NAME": "x", "PORT": port})) == ["PORT"]
    assert list(problems(es, {"HOSTS": [{"host": "h", "port": port}]})) == ["HOSTS[0].port"]


@pytest.mark.parametrize(
    "host",
    ["http://h:99999", "http://h:\u00b2", "http://h:0", "http://-h", "http://h..x", "http://h h", "http://[::x]",
     "http://h/../x", "http://h/%2e%2e/x", "http://h/a//b", "http://h/a b", "http://a@b@c", "http://\ud800",
     "http://h\n", "http://" + "x" * 300, "http://" + "\u00fc" * 60, "file:///etc/passwd", "unix:///x", 5, None, {}],
)  # fmt: skip
def test_what_is_no_node_of_elasticsearch(host):
    assert all(key.startswith("HOSTS[0]") for key in problems(es, {"HOSTS": [host]}))
    assert list(problems(es, {"HOSTS": ["http://h"] * 51})) == ["HOSTS"]


@pytest.mark.parametrize(
    ("config", "where"),
    [
        ({"OPTIONS": {"minPoolSize": 5, "maxPoolSize": 4}}, "OPTIONS.minPoolSize"),
        ({"OPTIONS": {"w": 0, "journal": True}}, "OPTIONS.w"),
        ({"OPTIONS": {"maxStalenessSeconds": 100}}, "OPTIONS.readPreference"),
        ({"OPTIONS": {"readPreferenceTags": ["a:b"]}}, "OPTIONS.readPreference"),
        ({"OPTIONS": {"directConnection": True}, "HOST": "a,b"}, "OPTIONS.directConnection"),
        ({"OPTIONS": {"authMechanism": "MONGODB-X509"}, "USER": "u", "PASS": "p"}, "USER"),
        ({"OPTIONS": {"authMechanism": "SCRAM-SHA-256"}, "HOST": "other.test"}, "USER"),
    ],
)
def test_what_the_client_would_refuse_together_is_refused_at_once(config, where):
    """Else the record would be good, and every use of it fail."""
    assert list(problems(mongo, {"NAME": "x", **config})) == [where]


def test_tls_of_the_templates_hosts_cannot_be_taken_off():
    template = {"CONN_URL": "mongodb://db.test/main?tls=true", "OPTIONS": {"tlsCAFile": "/etc/ca.pem"}}
    assert list(problems(mongo, {"NAME": "x", "OPTIONS": {"tls": False}}, template)) == ["OPTIONS.tls"]
    assert list(problems(mongo, {"NAME": "x", "OPTIONS": {"ssl": False}}, template)) == ["OPTIONS.tls"]
    assert list(problems(mongo, {"CONN_URL": "mongodb://db.test/x?tls=false"}, template)) == ["OPTIONS.tls"]
    own = mongo({"CONN_URL": "mongodb://own.test/x?tls=false"}, template)
    MongoClient(connect=False, **own.arguments).close()
    assert CANARY not in str(es({"HOSTS": ["http://es.test:9200"]}))  # the same node, without TLS: no credentials
    assert "basic_auth" not in es({"HOSTS": ["http://es.test:9200"]}).options


# --- credentials ---


@pytest.mark.parametrize("hosts", [["https://evil.test:9200"], ["https://es.test:9200", "https://evil.test"],
                                   ["https://es.test:9201"], ["https://es.test:9200/x"]])  # fmt: skip
def test_other_nodes_do_not_get_the_templates_credentials(hosts):
    options = {**ES["OPTIONS"], "client_cert": "/etc/c", "client_key": "/etc/k", "headers": {"x": CANARY}}
    found = es({"HOSTS": hosts}, {**ES, "OPTIONS": {**options, "http_compress": True}})
    assert dict(found.options) == {"request_timeout": 10.0, "http_compress": True}


@pytest.mark.parametrize("host", ["https://ES.test.:09200/", {"host": "es.test", "scheme": "https"}])
def test_the_templates_nodes_get_them_however_they_are_spelt(host):
    assert es({"HOSTS": [host]}).options["basic_auth"] == ("u", CANARY)


def test_credentials_show_themselves_to_nobody():
    clusters = [es({}), es({"HOSTS": [f"http://u:{CANARY}@h"]})]
    clusters += [es({"OPTIONS": {kind: CANARY}}) for kind in ("api_key", "bearer_auth", "basic_auth")]
    for found in (mongo({"NAME": "x"}), *clusters):
        told = [repr(found), *map(repr, found), repr(getattr(found, "cluster_key", "")), getattr(found, "key", "")]
        assert CANARY not in str(told)


# --- what the settings allow ---


def test_the_settings_can_allow_more():
    config = {"NAME": "x", "OPTIONS": {"tlsAllowInvalidCertificates": True, "loadBalanced": False}}
    assert mongo(config, ALLOW_OPTIONS=["tlsallowinvalidcertificates", "loadBalanced"]).name == "x"
    assert list(problems(mongo, config, ALLOW_OPTIONS=["loadBalanced"])) == ["OPTIONS.tlsAllowInvalidCertificates"]
    assert "refuses" in str(problems(mongo, {"NAME": "x", "OPTIONS": {"fsync": 5}}, ALLOW_OPTIONS=["fsync"]))
    assert es({"OPTIONS": {"verify_certs": False}}, ALLOW_OPTIONS=["verify_certs"]).options["verify_certs"] is False
    for option in ("hosts", "cloud_id", "headers", "no_such"):
        assert problems(es, {"OPTIONS": {option: "x"}}, ALLOW_OPTIONS=[option])


def test_what_a_record_repeats_of_its_template_is_no_news():
    """A test run prepares its tenants from the template as it is."""
    template = {**MONGO, "HOST": "/run/m.sock", "OPTIONS": {"tlsCAFile": "/etc/ca.pem"}}
    assert mongo(template, template).arguments["tlscafile"] == "/etc/ca.pem"
    assert problems(mongo, {**template, "OPTIONS": {"tlsCAFile": "/etc/other.pem"}}, template)
    template = {**ES, "OPTIONS": {"ca_certs": "/etc/ca.pem", "ssl_context": ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)}}
    assert es(template, template).options["ca_certs"] == "/etc/ca.pem"
    assert problems(es, {"OPTIONS": {"ca_certs": "/etc/other.pem"}}, template)


# --- any JSON ---

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
PIECES = st.sampled_from(["h", "db.test", ":27018", ":", "@", "/", "/x", "?", "&", "=", "tls", "true", "u:p@", "%2F",
                          "%", ".sock", ",", "[::1]", "[", "]", "\ud800", "\u00b2", "..", "mongodb://", "http://", "#",
                          ";", "mongodb+srv://", "https://", "es.test", "w=1", "\n", "99999", "w"])  # fmt: skip
TEXT = st.lists(PIECES, max_size=8).map("".join)
VALUES = JSON | TEXT | st.lists(TEXT, max_size=3)


def option_names(known):
    return st.sampled_from(sorted(known)) | st.text(max_size=8)


@st.composite
def configs(draw, keys, options, host_keys=()):
    made = draw(st.dictionaries(st.sampled_from(keys) | st.text(max_size=6), VALUES, max_size=5))
    if draw(st.booleans()):
        made["OPTIONS"] = draw(st.dictionaries(option_names(options), VALUES, max_size=4))
    if host_keys and draw(st.booleans()):
        made["HOSTS"] = draw(
            st.lists(st.dictionaries(st.sampled_from(host_keys), VALUES, max_size=4) | TEXT, max_size=3)
        )
    if "NAME" in keys and draw(st.booleans()):
        made["NAME"] = "acme"
    if draw(st.booleans()):
        made["CONN_URL"] = draw(st.sampled_from(["mongodb://", "mongodb+srv://"])) + draw(TEXT)
    return made


@contextmanager
def no_io():
    """Whatever reaches for a file or a socket fails with what nobody expects."""

    def refused(*args, **kwargs):
        raise AssertionError(f"I/O: {args}")

    reaching = [
        (socket, "getaddrinfo"),
        (socket.socket, "connect"),
        (builtins, "open"),
        (ssl, "create_default_context"),
    ]
    with pytest.MonkeyPatch.context() as patched:
        for owner, name in reaching:
            patched.setattr(owner, name, refused)
        yield


MANAGERS = {
    "mongo": lambda: Manager("x_orm", {"default": MONGO}, {}),
    "es": lambda: EsOrmManager("es_orm", {"default": ES}, {}),
}
PATH = re.compile(r"orm_config\.(?:x_orm|es_orm)\.default\.", re.DOTALL)


def check(manager, config):
    """It is good (then, what is made of it), or refused by its path, without a value; and it is said where it leads."""
    try:
        list(manager.locations("a.test", {"default": config}))
        return manager.prepare("a.test", {"default": config}, None)["default"]
    except RecordInvalid as error:
        found = error
    assert all(PATH.match(path) and what for path, what in found.problems)
    assert CANARY not in str(found)
    return None


@settings(max_examples=150, deadline=None)
@given(configs(["NAME", "USER", "PASS", "HOST", "PORT", "CONN_URL"], common.VALIDATORS))
def test_any_json_is_a_good_record_of_mongodb_or_is_refused_by_its_path(config):
    manager = MANAGERS["mongo"]()
    with no_io():
        made = check(manager, config)
    # What is good here is good for the client; only mongodb+srv:// asks the DNS, and TLS reads certificates.
    if made and made.target.arguments["host"].startswith("mongodb:") and not made.target.arguments.get("tls"):
        MongoClient(connect=False, **made.target.arguments).close()


@settings(max_examples=150, deadline=None)
@given(
    configs(
        ["HOSTS", "OPTIONS", "INDEX_PREFIX"],
        inspect.signature(Elasticsearch.__init__).parameters,
        ["host", "port", "scheme", "path_prefix", "x"],
    )
)
def test_any_json_is_a_good_record_of_elasticsearch_or_is_refused_by_its_path(config):
    config.pop("CONN_URL", None)
    manager = MANAGERS["es"]()
    with no_io():
        check(manager, config)


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(es_options.OPTIONS)), JSON, max_size=4), st.lists(TEXT, max_size=2))
def test_a_good_record_makes_a_client_of_elasticsearch(options, hosts):
    config = {
        "OPTIONS": {**options, "sniff_on_start": False},
        **({"HOSTS": [f"http://{h}" for h in hosts]} if hosts else {}),
    }
    try:
        found = es(config)
    except RecordInvalid:
        return
    SharedClient(found, None).make().close()


def test_a_large_record_is_refused_quickly_and_briefly():
    bad = {f"{number}{'x' * 200}": number for number in range(1_000)}
    started = time.process_time()
    for build in (mongo, es):
        with pytest.raises(RecordInvalid) as caught:
            build({"OPTIONS": bad, **bad, "X" * 100_000: 1, "CONN_URL": "mongodb://" + "h," * 100_000})
        assert len(str(caught.value)) < 3_000
        assert all(len(path) + len(what) < 400 for path, what in caught.value.problems)
    assert time.process_time() - started < 4


@pytest.mark.parametrize(
    "url",
    [
        "mongodb://u:p?canary-Pa55@h/acme",
        "mongodb://u:p?canary-Pa55=1@h/acme",
        "mongodb://u:p/canary-Pa55@h/acme",
        "mongodb://u:p/x?canary-Pa55=1@h/acme",
        "mongodb://u:canary-Pa55@h:canary-Pa55/acme",
        "mongodb://u:canary-Pa55:x@h/acme",
        "mongodb://u:canary-Pa55@[h/acme",
        "mongodb:canary-Pa55",
        "mongodb://h/acme?tls=canary-Pa55",
        "mongodb://h canary-Pa55/acme",
        "mongodb://u:canary-Pa55@h/ac.me",
    ],
)
def test_no_message_about_a_url_shows_what_may_be_its_password(url):
    assert CANARY not in str(problems(mongo, {"CONN_URL": url}))
    url = f"{url.replace('mongodb:', 'http:')}?x"
    assert CANARY not in str(problems(es, {"HOSTS": [url]}))


def test_one_bad_record_is_one_tenants_matter():
    """It was a ``ValueError`` that made the load of all fail."""
    for manager, config in (
        (MANAGERS["mongo"](), {"NAME": "x", "PORT": "\u00b2"}),
        (MANAGERS["es"](), {"HOSTS": ["http://h:\u00b2"]}),
    ):
        assert list(manager.locations("a.test", {"default": json.loads(json.dumps(config))})) == []
        with pytest.raises(RecordInvalid):
            manager.prepare("a.test", {"default": config}, None)
