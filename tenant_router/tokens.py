"""What is signed for one tenant is worth nothing at another, although they share a SECRET_KEY.

The bound tenant is part of every signature (signed cookies, cookie sessions, the data of all
other session engines, ``django.core.signing``), of password-reset tokens, and of the keys of
sessions in a cache or in files. What is signed while no tenant is bound is signed as Django does it.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from typing import Any

from django.apps import apps
from django.core.signing import Signer
from django.utils.encoding import force_bytes

from tenant_router import context as _context
from tenant_router.cache.keys import token
from tenant_router.conf import conf

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


def uninstall() -> None:
    """Undo :func:`install`."""
    while _undo:
        _undo.pop()()


def _tenant() -> str:
    """The tenant's part of a signature; empty where Django's own signatures are wanted."""
    bound = _context.current()
    return "" if bound is None or isinstance(bound, _context.PlainContext) else bound.id


def _tenant_of_session() -> str:
    return "" if conf.middleware["CENTRAL_SESSIONS"] else _tenant()


def _signature(original: Callable[..., str]) -> Callable[..., str]:
    def signature(self: Signer, value: Any, key: Any = None) -> str:
        # The sessions' own salt (backends/base.py and signed_cookies.py) begins so.
        tenant = _tenant_of_session() if str(self.salt).startswith("django.contrib.sessions") else _tenant()
        return original(self, f"{tenant}\0{value}" if tenant else value, key)

    return signature


def _secret(original: property) -> Callable[[Any], Any]:
    return lambda generator: _with_tenant(original.fget(generator))  # type: ignore[misc]


def _secrets(original: property) -> Callable[[Any], Any]:
    return lambda generator: [_with_tenant(secret) for secret in original.fget(generator)]  # type: ignore[misc]


def _with_tenant(secret: str | bytes) -> str | bytes:
    tenant = _tenant()
    return force_bytes(secret) + b"\0" + tenant.encode() if tenant else secret


def _prefix(original: str) -> Callable[[Any], str]:
    def cache_key_prefix(store: Any) -> str:
        tenant = _tenant_of_session()
        return f"{original}{token(tenant)}." if tenant else original

    return cache_key_prefix


def _key_to_file(original: Callable[..., str]) -> Callable[..., str]:
    def key_to_file(store: Any, session_key: str | None = None) -> str:
        """The tenant's own file in the one folder; a name that ``clearsessions`` has read from there is whole."""
        tenant, key = _tenant_of_session(), session_key or store._get_or_create_session_key()
        mark = blake2b(tenant.encode(), digest_size=8).hexdigest() if tenant else ""
        return original(store, key if key.startswith(mark) else mark + key)

    return key_to_file


def _replace(owner: Any, name: str, value: Any) -> None:
    original = vars(owner)[name]
    setattr(owner, name, value)
    _undo.append(lambda: setattr(owner, name, original))
