"""Merges a template with a tenant's record: a cluster's address and options, and an index prefix."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

from tenant_router.exceptions import RecordInvalid
from tenant_router.orm_backends.es_orm import nodes
from tenant_router.orm_backends.es_orm.validation import CREDENTIALS, faults_of, host_faults
from tenant_router.secrets import SecretText

# No id has a "~", so that no default prefix begins with another one.
DEFAULT_PREFIX = "{tenant}~"
LONGEST_ID = 120  # characters of a prefix, of the 255 bytes that Elasticsearch allows a name
REQUEST_TIMEOUT = 10.0  # seconds, unless OPTIONS say otherwise: nothing waits for ever
# What goes to the nodes for which it was written, and to no others.
_GO_WITH_HOSTS = frozenset({*CREDENTIALS, "client_cert", "client_key", "headers"})


class Cluster(NamedTuple):
    """A cluster: its nodes as URLs, and the options of a client for it. Its ``repr`` shows no secret."""

    hosts: tuple[str, ...]
    options: Mapping[str, Any]

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {', '.join(self.addresses)}>"

    @property
    def addresses(self) -> tuple[str, ...]:
        """The nodes without credentials, in one order and one spelling."""
        return addresses(self.hosts)

    @property
    def key(self) -> str:
        """Equal for tenants that can share a client: same nodes, credentials and options."""
        # Objects (of a template: an SSL context, a serializer) are told apart by their identity.
        text = json.dumps(
            [sorted(self.hosts), self.options], sort_keys=True, default=lambda o: f"{type(o).__name__}:{id(o)}"
        )
        return hashlib.sha256(text.encode()).hexdigest()


def build(
    template: Mapping[str, Any], config: Mapping[str, Any], tenant_id: str, widen: Collection[str] = ()
) -> tuple[Cluster, str]:
    """Merge a tenant's ``config`` into its ``template``: the cluster, and the prefix of its index names.

    ``OPTIONS`` merge one level deep; credentials in a record replace the template's, whatever their kind, and
    a record that leads to other nodes has none of the template's. ``widen``: options that a record may have
    besides the allow-listed. Raises ``RecordInvalid`` with every fault, by key and without values.
    """
    faults = list(faults_of(template, config, prefix_of(template, config, tenant_id), widen))
    if faults:
        raise RecordInvalid(faults)
    merged = {**template, **config, "OPTIONS": _options(template, config)}
    return central(merged), prefix_of(template, config, tenant_id)


def central(settings: Mapping[str, Any]) -> Cluster:
    """The cluster of complete settings."""
    options = {"request_timeout": REQUEST_TIMEOUT, **settings.get("OPTIONS", {})}
    for name in CREDENTIALS:
        if name in options:
            options[name] = _hidden(options[name])
    return Cluster(tuple(node.url for node in nodes.nodes(settings["HOSTS"])), options)


def prefix_of(template: Mapping[str, Any], config: Mapping[str, Any], tenant_id: str) -> Any:
    """What a tenant's index names begin with."""
    prefix = {**template, **config}.get("INDEX_PREFIX", DEFAULT_PREFIX)
    return prefix.replace("{tenant}", _token(tenant_id)) if isinstance(prefix, str) else prefix


def _token(tenant_id: str) -> str:
    """The tenant in a prefix: its id, or a hash of 16 hex digits, which nobody can take for an id."""
    if len(tenant_id) <= LONGEST_ID:
        return tenant_id
    return "~" + hashlib.blake2b(tenant_id.encode(), digest_size=8).hexdigest()


def addresses(hosts: Iterable[Any]) -> tuple[str, ...]:
    """The nodes that (valid) ``HOSTS`` lead to, without credentials, in one order and one spelling."""
    return tuple(sorted({node.place for node in nodes.nodes(hosts)}))


def places(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """:func:`addresses` of settings; none of wrong ones."""
    return () if host_faults(settings) else addresses(settings["HOSTS"])


def _options(template: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    own, base = config.get("OPTIONS", {}), template.get("OPTIONS", {})
    dropped = _GO_WITH_HOSTS if _leads_elsewhere(template, config) else frozenset()
    if any(name in own for name in CREDENTIALS):
        dropped = dropped.union(CREDENTIALS)
    return {**{name: value for name, value in base.items() if name not in dropped}, **own}


def _leads_elsewhere(template: Mapping[str, Any], config: Mapping[str, Any]) -> bool:
    """Whether any node of a record is none of its template's."""
    if "HOSTS" not in config:
        return False
    known = set() if host_faults(template) else {node.trusted_as for node in nodes.nodes(template["HOSTS"])}
    return not {node.trusted_as for node in nodes.nodes(config["HOSTS"])} <= known


def _hidden(value: Any) -> Any:
    """A credential, which frames and logs show as ``***``."""
    if isinstance(value, list | tuple):
        return tuple(map(_hidden, value))
    return SecretText(value) if isinstance(value, str) else value
