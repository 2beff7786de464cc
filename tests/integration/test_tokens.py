"""What was signed, stored or sent for one tenant is worth nothing at another with the same user and SECRET_KEY."""

import re
from http.cookies import SimpleCookie

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.contrib.auth.tokens import default_token_generator
from django.contrib.sessions.backends.cache import SessionStore as CachedSessions
from django.contrib.sessions.backends.file import SessionStore as FileSessions
from django.contrib.sessions.models import Session
from django.core import signing
from django.core.cache import caches
from django.core.management import call_command
from django.db import connections
from django.http import HttpResponse
from django.test import Client, RequestFactory, override_settings

from tenant_router.conf import conf
from tenant_router.context_decorators import tenant_context_bind
from tenant_router.requests import tokens

ENGINES = ("db", "cache", "cached_db", "file", "signed_cookies")


class SessionRouter:
    """Sends sessions to the central database."""

    def db_for_read(self, model, **hints):
        return "central" if model is Session else None

    db_for_write = db_for_read


CENTRAL = {"TENANT_ROUTER_MIDDLEWARE_SETTINGS": {"CENTRAL_SESSIONS": True}}
CENTRAL_TABLE = {"DATABASE_ROUTERS": ["tests.integration.test_tokens.SessionRouter", *settings.DATABASE_ROUTERS]}


@pytest.fixture
def central_table():
    with connections["central"].schema_editor() as editor:
        editor.create_model(Session)
    yield
    with connections["central"].schema_editor() as editor:
        editor.delete_model(Session)


@pytest.fixture
def engine(tmp_path):
    """A function that chooses a session engine."""
    (tmp_path / "sessions").mkdir()
    made = []

    def choose(name, **changed):
        path = f"django.contrib.sessions.backends.{name}"
        made.append(override_settings(SESSION_ENGINE=path, SESSION_FILE_PATH=str(tmp_path / "sessions"), **changed))
        made[-1].enable()
        conf.forget()

    yield choose
    for change in made:
        change.disable()
    conf.forget()
    if "_storage_path" in vars(FileSessions):  # Django keeps the first that was used
        del FileSessions._storage_path


def _visits(client, tenant):
    return client.get("/session/", headers={"host": f"{tenant}.test"}).json()["visits"]


def _replay_is_worth_nothing(owner_keeps_it=True):
    client = Client()
    assert [_visits(client, "a"), _visits(client, "a")] == [1, 2]
    assert client.cookies["sessionid"].value
    thief = Client()
    thief.cookies = SimpleCookie(client.cookies.output(header=""))
    assert _visits(thief, "b") == 1
    assert (_visits(client, "a") == 3) is owner_keeps_it


# --- sessions ---


@pytest.mark.parametrize("name", ENGINES)
def test_a_replayed_session_is_empty(pair, engine, name):
    engine(name)
    _replay_is_worth_nothing()


@pytest.mark.parametrize("name", ["cache", "cached_db"])
def test_a_replayed_session_of_a_central_cache_is_empty(pair, engine, name):
    engine(name, SESSION_CACHE_ALIAS="central")
    _replay_is_worth_nothing()


def test_a_replayed_session_of_a_central_database_is_empty(pair, engine, central_table):
    engine("db", **CENTRAL_TABLE)
    _replay_is_worth_nothing(owner_keeps_it=False)  # there is one row for both


@pytest.mark.parametrize("name", ENGINES)
def test_a_replayed_login_is_nobodys(pair, engine, name):
    engine(name)
    with tenant_context_bind("a.test"):
        user = User.objects.get(id=1)
        client = Client(headers={"host": "a.test"})
        client.force_login(user)
    assert client.get("/admin/", headers={"host": "a.test"}).status_code == 200
    refused = client.get("/admin/", headers={"host": "b.test"})
    assert refused.status_code == 302
    assert "/admin/login/" in refused["Location"]


@pytest.mark.parametrize("in_session", [False, True])
def test_a_login_with_another_tenants_csrf_token_is_refused(pair, engine, in_session):
    csrf = "django.middleware.csrf.CsrfViewMiddleware"
    engine("db", CSRF_USE_SESSIONS=in_session, MIDDLEWARE=[*settings.MIDDLEWARE, csrf])
    for letter in "ab":
        with tenant_context_bind(f"{letter}.test"):
            User.objects.create_superuser("same", password="same")
    client = Client(enforce_csrf_checks=True)
    form = {"username": "same", "password": "same", "next": "/admin/"}

    def sent(client, tenant, token):
        filled = {**form, "csrfmiddlewaretoken": token}
        return client.post("/admin/login/", filled, headers={"host": f"{tenant}.test"}).status_code

    def read(client, tenant):
        page = client.get("/admin/login/", headers={"host": f"{tenant}.test"}).content.decode()
        return re.search('name="csrfmiddlewaretoken" value="([^"]+)"', page)[1]

    token = read(client, "a")
    thief = Client(enforce_csrf_checks=True)
    thief.cookies = SimpleCookie(client.cookies.output(header=""))
    assert sent(thief, "b", token) == 403
    with override_settings(SECRET_KEY="new", SECRET_KEY_FALLBACKS=[settings.SECRET_KEY]):
        assert sent(client, "a", token) == 302
        assert client.get("/admin/", headers={"host": "a.test"}).status_code == 200
    assert sent(thief, "b", read(thief, "b")) == 302


def test_expired_sessions_in_files_are_cleared(pair, engine, tmp_path):
    """Bound to a tenant, ``clearsessions`` clears that tenant's; without one, everybody's."""
    engine("file")
    client = Client()
    for letter in "aab":
        _visits(client, letter)
    assert _cleared(tmp_path) == 2
    with override_settings(SESSION_COOKIE_AGE=-1):
        with tenant_context_bind("a.test"):
            assert _cleared(tmp_path) == 1
        assert _visits(client, "b") == 1
        assert _cleared(tmp_path) == 0


def _cleared(folder):
    call_command("clearsessions")
    return len(list((folder / "sessions").iterdir()))


def test_central_sessions_are_valid_everywhere_when_asked_for(pair, engine):
    engine("cache", SESSION_CACHE_ALIAS="central", **CENTRAL)
    client = Client()
    assert [_visits(client, "a"), _visits(client, "b"), _visits(client, "a")] == [1, 2, 3]


def test_central_sessions_of_a_database_are_valid_everywhere_when_asked_for(pair, engine, central_table):
    engine("db", **CENTRAL_TABLE, **CENTRAL)
    client = Client()
    assert [_visits(client, "a"), _visits(client, "b"), _visits(client, "a")] == [1, 2, 3]


def test_opting_out_for_sessions_opens_nothing_else(two_ids, engine):
    engine("cache", SESSION_CACHE_ALIAS="central", **CENTRAL)
    with tenant_context_bind("a.test"):
        signed = signing.dumps("of a")
    with tenant_context_bind("b.test"), pytest.raises(signing.BadSignature):
        signing.loads(signed)


def test_the_key_of_a_cached_session_names_its_tenant(pair, engine):
    engine("cache", SESSION_CACHE_ALIAS="central")
    client = Client()
    _visits(client, "a")
    key = client.cookies["sessionid"].value
    assert caches["central"].get(f"tenant:a.test:django.contrib.sessions.cache{key}")
    assert caches["central"].get(f"django.contrib.sessions.cache{key}") is None


def test_no_cookie_leads_to_the_session_of_a_tenant_whose_id_begins_or_ends_alike(tenants, engine):
    """Whatever is put before a session's key: at ``a``, at ``test`` and for nobody it is no session of ``a.test``."""
    engine("cache", SESSION_CACHE_ALIAS="central")
    for tenant_id in ("a.test", "a", "test"):
        tenants.arrived(tenant_id, tenants.put(tenant_id))
    with tenant_context_bind("a.test"):
        kept = CachedSessions()
        kept["of"] = "a.test"
        kept.save()
    names = ("", "a.test.", "a.", "test.", ".test.", "a.test:", "test:", ":", "a.test:django.contrib.sessions.cache")
    for mark in (*names, *(f"tenant:{name}" for name in names)):
        stolen = CachedSessions(session_key=mark + kept.session_key)
        assert not dict(stolen.items())
        for tenant_id in ("a", "test"):
            with tenant_context_bind(tenant_id):
                assert not dict(CachedSessions(session_key=mark + kept.session_key).items())
    with tenant_context_bind("a.test"):
        assert dict(CachedSessions(session_key=kept.session_key).items()) == {"of": "a.test"}


# --- signatures ---


def _signers():
    yield signing.Signer().sign, signing.Signer().unsign
    yield signing.Signer(salt="own").sign, signing.Signer(salt="own").unsign
    yield signing.TimestampSigner().sign, signing.TimestampSigner().unsign
    yield signing.dumps, signing.loads
    yield signing.Signer().sign_object, signing.Signer().unsign_object


@pytest.mark.parametrize("number", range(5))
def test_a_signature_is_valid_at_its_own_tenant_only(two_ids, number):
    sign, unsign = list(_signers())[number]
    with tenant_context_bind("a.test"):
        signed = sign("value")
        assert unsign(signed) == "value"
    with tenant_context_bind("b.test"), pytest.raises(signing.BadSignature):
        unsign(signed)
    with pytest.raises(signing.BadSignature):
        unsign(signed)


@pytest.fixture
def two_ids(tenants):
    """Two tenants without tables."""
    for tenant_id in ("a.test", "b.test"):
        tenants.arrived(tenant_id, tenants.put(tenant_id))
    return tenants


def test_an_unbound_signature_is_djangos_own(two_ids):
    unbound = signing.Signer().sign("value")
    with tenant_context_bind("a.test"), pytest.raises(signing.BadSignature):
        signing.Signer().unsign(unbound)
    tokens.uninstall()
    try:
        assert signing.Signer().unsign(unbound) == "value"
    finally:
        tokens.install()


TENANTS_PLACES = (
    "{tenant}\0{value}",
    "{tenant}:{value}",
    "{value}\0{tenant}",
    "\0{tenant}\0{value}",
    "{tenant}{value}",
)


@pytest.mark.parametrize("place", TENANTS_PLACES)
@pytest.mark.parametrize("signer", [signing.Signer, signing.TimestampSigner])
def test_no_value_that_was_signed_for_nobody_or_elsewhere_is_another_at_a_tenant(two_ids, place, signer):
    """``Signer().sign("b.test\\0evil")`` was the signature of ``evil`` at ``b.test``."""
    chosen = place.format(tenant="b.test", value="evil")
    signatures = [signer().sign(chosen)]
    with tenant_context_bind("a.test"):
        signatures.append(signer().sign(chosen))
    with tenant_context_bind("b.test"):
        for signed in signatures:
            signature = signed.removeprefix(chosen)
            for value in ("evil", chosen):
                with pytest.raises(signing.BadSignature):
                    signer().unsign(value + signature)


def test_a_key_of_ones_own_is_a_tenants_too(two_ids):
    for signer in (signing.Signer(key="own"), signing.Signer(key=b"own", fallback_keys=["old"])):
        with tenant_context_bind("a.test"):
            signed = signer.sign("value")
            assert signer.unsign(signed) == "value"
        with tenant_context_bind("b.test"), pytest.raises(signing.BadSignature):
            signer.unsign(signed)
        with pytest.raises(signing.BadSignature):
            signer.unsign(signed)


def test_a_signed_cookie_is_valid_at_its_own_tenant_only(two_ids):
    with tenant_context_bind("a.test"):
        response = HttpResponse()
        response.set_signed_cookie("choice", "of a", salt="s")
    request = RequestFactory().get("/")
    request.COOKIES["choice"] = response.cookies["choice"].value
    with tenant_context_bind("a.test"):
        assert request.get_signed_cookie("choice", salt="s") == "of a"
    with tenant_context_bind("b.test"):
        assert request.get_signed_cookie("choice", None, salt="s") is None


def test_old_keys_go_on_being_accepted_at_their_own_tenant_only(two_ids):
    with tenant_context_bind("a.test"):
        signed = signing.dumps("value")
    with override_settings(SECRET_KEY="new", SECRET_KEY_FALLBACKS=[settings.SECRET_KEY]):
        with tenant_context_bind("a.test"):
            assert signing.loads(signed) == "value"
        with tenant_context_bind("b.test"), pytest.raises(signing.BadSignature):
            signing.loads(signed)


# --- password-reset tokens ---


def _reset_of(letter):
    with tenant_context_bind(f"{letter}.test"):
        # Both users are the same in every respect that Django's token is made of.
        return default_token_generator.make_token(User(pk=1, password="same", email="same@example.com"))


def _is_accepted(letter, token):
    with tenant_context_bind(f"{letter}.test"):
        return default_token_generator.check_token(User(pk=1, password="same", email="same@example.com"), token)


def test_a_password_reset_token_is_valid_at_its_own_tenant_only(two_ids):
    token = _reset_of("a")
    assert _is_accepted("a", token)
    assert not _is_accepted("b", token)


def test_an_old_password_reset_token_is_valid_at_its_own_tenant_only(two_ids):
    token = _reset_of("a")
    with override_settings(SECRET_KEY="new", SECRET_KEY_FALLBACKS=[settings.SECRET_KEY]):
        default_token_generator._secret = default_token_generator._secret_fallbacks = None
        assert _is_accepted("a", token)
        assert not _is_accepted("b", token)


def test_the_hash_that_ends_sessions_with_a_password_needs_no_tenant(two_ids):
    with tenant_context_bind("a.test"):
        bound = User(pk=1, password="same").get_session_auth_hash()
    assert bound == User(pk=1, password="same").get_session_auth_hash()


def test_install_and_uninstall_are_idempotent(two_ids):
    before = vars(signing.Signer)["signature"]
    tokens.install()
    assert vars(signing.Signer)["signature"] is before
    tokens.uninstall()
    tokens.uninstall()
    try:
        assert vars(signing.Signer)["signature"] is not before
    finally:
        tokens.install()
