"""Merges a template with a tenant's record: a cluster's address and options, and an index prefix."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

from tenant_router.exceptions import RecordInvalid
from tenant_router.orm_backends.es_orm.validation import CREDENTIALS, faults_of

# No id has a "~", so that no default prefix begins with another one.
DEFAULT_PREFIX = "{tenant}~"
LONGEST_ID = 120  # characters of a prefix, of the 255 bytes that Elasticsearch allows a name
REQUEST_TIMEOUT = 10.0  # seconds, unless OPTIONS say otherwise: nothing waits for ever


class Cluster(NamedTuple):
    """A cluster: its nodes as URLs, and the options of a client for it. Its ``repr`` shows no secret."""

    hosts: tuple[str, ...]
    options: Mapping[str, Any]

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {', '.join(self.addresses)}>"

    @property
    def addresses(self) -> tuple[str, ...]:
        """The nodes without credentials, in one order."""
        return tuple(sorted(map(_address, self.hosts)))

    @property
    def key(self) -> str:
        """Equal for tenants that can share a client: same nodes, credentials and options."""
        # Objects (of a template: an SSL context, a serializer) are told apart by their identity.
        text = json.dumps([self.hosts, self.options], sort_keys=True, default=lambda o: f"{type(o).__name__}:{id(o)}")
        return hashlib.sha256(text.encode()).hexdigest()


def build(template: Mapping[str, Any], config: Mapping[str, Any], tenant_id: str) -> tuple[Cluster, str]:
    """Merge a tenant's ``config`` into its ``template``: the cluster, and the prefix of its index names.

    ``OPTIONS`` merge one level deep; credentials in a record replace the template's, whatever
    their kind. Raises ``RecordInvalid`` with every fault, by key and without values.
    """
    merged = {**template, **config}
    faults = list(faults_of(merged, config, prefix_of(template, config, tenant_id)))
    if faults:
        raise RecordInvalid(faults)
    return central({**merged, "OPTIONS": _options(template, config)}), prefix_of(template, config, tenant_id)


def central(settings: Mapping[str, Any]) -> Cluster:
    """The cluster of complete settings."""
    options = {"request_timeout": REQUEST_TIMEOUT, **settings.get("OPTIONS", {})}
    for name in ("basic_auth", "api_key"):
        if isinstance(options.get(name), list):
            options[name] = tuple(options[name])
    return Cluster(tuple(map(_url, settings["HOSTS"])), options)


def prefix_of(template: Mapping[str, Any], config: Mapping[str, Any], tenant_id: str) -> Any:
    """What a tenant's index names begin with."""
    prefix = {**template, **config}.get("INDEX_PREFIX", DEFAULT_PREFIX)
    return prefix.replace("{tenant}", _token(tenant_id)) if isinstance(prefix, str) else prefix


def _token(tenant_id: str) -> str:
    """The tenant in a prefix: its id, or a hash of 16 hex digits, which nobody can take for an id."""
    if len(tenant_id) <= LONGEST_ID:
        return tenant_id
    return "~" + hashlib.blake2b(tenant_id.encode(), digest_size=8).hexdigest()


def addresses(hosts: Sequence[Any]) -> tuple[str, ...]:
    """The nodes that (valid) ``HOSTS`` lead to, without credentials."""
    return tuple(sorted(_address(_url(host)) for host in hosts))


def _options(template: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    own, base = config.get("OPTIONS", {}), dict(template.get("OPTIONS", {}))
    if any(name in own for name in CREDENTIALS):
        base = {name: value for name, value in base.items() if name not in CREDENTIALS}
    return {**base, **own}


def _url(host: Any) -> str:
    """A node as a URL with a port."""
    if isinstance(host, str):
        parts = urlsplit(host)
        place = parts.netloc if parts.port else f"{parts.netloc}:{443 if parts.scheme == 'https' else 9200}"
        return f"{parts.scheme}://{place}{parts.path.rstrip('/')}"
    name = f"[{host['host']}]" if ":" in host["host"] else host["host"]
    path = quote(host.get("path_prefix", "").strip("/"))
    return f"{host.get('scheme', 'http')}://{name}:{host.get('port', 9200)}{'/' if path else ''}{path}"


def _address(url: str) -> str:
    return url.split("://", 1)[1].rpartition("@")[2].lower()
