"""The request that all sites of the benchmarks answer. The peers' environments import it, too: it needs Django only."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import Any

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]


def ask(application: Callable[..., Any], tenant: int, **headers: str) -> None:
    """One request to a WSGI application, whose answer has to be the tenant's own."""
    environ = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": "/",
        "HTTP_HOST": f"t{tenant}.test",
        "SERVER_NAME": "bench",
        "SERVER_PORT": "80",
        "wsgi.input": BytesIO(),
        "wsgi.url_scheme": "http",
        **headers,
    }
    response = application(environ, lambda status, headers: None)
    body = b"".join(response)
    response.close()
    assert body == b'{"text": "of %d"}' % tenant, body
