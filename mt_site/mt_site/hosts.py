"""What a request's host name says: whose site it is, and where its neighbours live."""

from dataclasses import dataclass

from django.conf import settings
from django.http import HttpRequest
from django.http.request import split_domain_port

LOCAL_DOMAIN = ".localhost"
PUBLIC_DOMAIN = ".test.com"
ACCENTS = 6


@dataclass(frozen=True)
class Link:
    name: str
    url: str
    current: bool


@dataclass(frozen=True)
class Site:
    host: str
    accent: int
    links: list[Link]


def tenant_id(request: HttpRequest) -> str:
    """Map ``<name>.localhost``, which browsers resolve by themselves, to ``<name>.test.com``."""
    domain, _ = split_domain_port(request.get_host())
    if domain.endswith(LOCAL_DOMAIN):
        return domain.removesuffix(LOCAL_DOMAIN) + PUBLIC_DOMAIN
    return domain


def describe(request: HttpRequest) -> Site:
    host = tenant_id(request)
    name = host.removesuffix(PUBLIC_DOMAIN)
    names = list(settings.DEMO_SITES)
    if name not in names:
        names.append(name)
    links = [Link(other, _url(request, other), other == name) for other in names]
    return Site(host, sum(host.encode()) % ACCENTS, links)


def _url(request: HttpRequest, name: str) -> str:
    """The same page at another site: its port and the style of its domain stay."""
    domain, port = split_domain_port(request.get_host())
    suffix = LOCAL_DOMAIN if domain.endswith(LOCAL_DOMAIN) else PUBLIC_DOMAIN
    return f"{request.scheme}://{name}{suffix}{':' + port if port else ''}/"
