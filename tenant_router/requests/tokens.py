"""Signatures and tokens per tenant: one tenant's are invalid at another, although they share a SECRET_KEY.

The bound tenant is part of the key of every signature (signed cookies, cookie sessions, the
data of all other session engines, ``django.core.signing``), of password-reset tokens, of the
keys of sessions in a cache or in files, and of the secret behind CSRF tokens: in none of these
can a value that somebody chose imitate it. What is signed while no tenant is bound is signed
as Django does it.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core.signing import Signer
from django.middleware import csrf
from django.utils.crypto import salted_hmac
from django.utils.encoding import force_bytes

from tenant_router import context as _context
from tenant_router.cache.keys import token
from tenant_router.conf import conf
from tenant_router.tenant_context import PlainContext

_SALT = "tenant_router.csrf"
_MARK = 8  # characters of a CSRF secret that tell whose it is
_undo: list[Callable[[], None]] = []


def install() -> None:
    """Patch Django's signers; idempotent."""
    if _undo:
        return
    _replace(Signer, "signature", _signature(Signer.signature))
    if apps.is_installed("django.contrib.auth"):
        from django.contrib.auth.tokens import PasswordResetTokenGenerator as Tokens

        own: dict[str, property] = {name: vars(Tokens)[name] for name in ("secret", "secret_fallbacks")}
        _replace(Tokens, "secret", own["secret"].getter(_secret(own["secret"])))
        _replace(Tokens, "secret_fallbacks", own["secret_fallbacks"].getter(_secrets(own["secret_fallbacks"])))
    if apps.is_installed("django.contrib.sessions"):
        from django.contrib.sessions.backends import cache, cached_db, file

        for store in (cache.SessionStore, cached_db.SessionStore):
            _replace(store, "cache_key_prefix", property(_prefix(store.cache_key_prefix)))
        _replace(file.SessionStore, "_key_to_file", _key_to_file(vars(file.SessionStore)["_key_to_file"]))
    # get_token() and rotate_token() of django/middleware/csrf.py make new secrets by the one, and all checks read
    # the visitor's by the other.
    for owner, name, bound in (
        (csrf, "_add_new_csrf_cookie", _new_csrf_secret),
        (csrf.CsrfViewMiddleware, "_get_secret", _own_csrf_secret),
    ):
        _replace(owner, name, bound(vars(owner)[name]))


def uninstall() -> None:
    """Undo :func:`install`."""
    while _undo:
        _undo.pop()()


def _tenant() -> str:
    """The tenant's part of a signature; empty where Django's own signatures are wanted."""
    bound = _context.current()
    return "" if bound is None or isinstance(bound, PlainContext) else bound.id


def _tenant_of_session() -> str:
    return "" if conf.middleware["CENTRAL_SESSIONS"] else _tenant()


def _signature(original: Callable[..., str]) -> Callable[..., str]:
    def signature(self: Signer, value: Any, key: Any = None) -> str:
        # The sessions' own salt (backends/base.py and signed_cookies.py) begins so.
        tenant = _tenant_of_session() if str(self.salt).startswith("django.contrib.sessions") else _tenant()
        return original(self, value, _with_tenant(key or self.key, tenant) if tenant else key)

    return signature


def _secret(original: property) -> Callable[[Any], Any]:
    return lambda generator: _with_tenant(original.fget(generator), _tenant())  # type: ignore[misc]


def _secrets(original: property) -> Callable[[Any], Any]:
    return lambda generator: [_with_tenant(secret, _tenant()) for secret in original.fget(generator)]  # type: ignore[misc]


def _with_tenant(secret: str | bytes, tenant: str) -> str | bytes:
    # Not into what is signed, which people choose: "b.test\0x", signed for nobody, would be "x" signed for b.test.
    return force_bytes(secret) + b"\0" + tenant.encode() if tenant else secret


def _prefix(original: str) -> Callable[[Any], str]:
    def cache_key_prefix(store: Any) -> str:
        tenant = _tenant_of_session()
        # Before what all keys of nobody's begin with, and ended by what no id has: a cookie is put behind it.
        return f"tenant:{token(tenant)}:{original}" if tenant else original

    return cache_key_prefix


def _key_to_file(original: Callable[..., str]) -> Callable[..., str]:
    def key_to_file(store: Any, session_key: str | None = None) -> str:
        """The tenant's own file in the one folder; a name that ``clearsessions`` has read from there is whole."""
        tenant, key = _tenant_of_session(), session_key or store._get_or_create_session_key()
        mark = blake2b(tenant.encode(), digest_size=8).hexdigest() if tenant else ""
        return original(store, key if key.startswith(mark) else mark + key)

    return key_to_file


def _new_csrf_secret(original: Callable[..., Any]) -> Callable[..., Any]:
    def add_new_csrf_cookie(request: Any) -> Any:
        secret = original(request)
        if tenant := _tenant_of_csrf():
            secret = secret[:-_MARK] + _csrf_mark(secret, Signer(salt=_SALT).key, tenant)
            request.META["CSRF_COOKIE"] = secret
        return secret

    return add_new_csrf_cookie


def _own_csrf_secret(original: Callable[..., Any]) -> Callable[..., Any]:
    def get_secret(self: Any, request: Any) -> Any:
        """The visitor's secret; ``None``, as if there were no cookie, for one that another tenant has given."""
        secret = original(self, request)
        tenant = _tenant_of_csrf() if secret else ""
        if not tenant:
            return secret
        signer = Signer(salt=_SALT)
        keys = (signer.key, *signer.fallback_keys)
        return secret if any(secret[-_MARK:] == _csrf_mark(secret, key, tenant) for key in keys) else None

    return get_secret


def _tenant_of_csrf() -> str:
    return _tenant_of_session() if settings.CSRF_USE_SESSIONS else _tenant()


def _csrf_mark(secret: str, key: str | bytes, tenant: str) -> str:
    """The last characters of a secret, which is of letters and digits; the others are random (142 bits)."""
    return salted_hmac(_SALT, f"{tenant}\0{secret[:-_MARK]}", key).hexdigest()[:_MARK]


def _replace(owner: Any, name: str, value: Any) -> None:
    original = vars(owner)[name]
    setattr(owner, name, value)
    _undo.append(lambda: setattr(owner, name, original))
