"""What only the config store can tell, so it is asked with ``check --deploy`` alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.http.request import validate_host

from tenant_router import context, runtime
from tenant_router.conf import ORMS, conf
from tenant_router.config_store.base import DELETED, META_ID, packed_state
from tenant_router.exceptions import TenantRouterError
from tenant_router.orm_backends.places import section

if TYPE_CHECKING:
    from tenant_router.lifecycle import Writer

PAGE = 1_000  # records read at once
BY_HOST = "tenant_router.middleware.resolve_by_host"


@register(Tags.compatibility, deploy=True)
def check_deployment(app_configs: Sequence[AppConfig] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """E023, E024: settings that fit no tenant of the store. W025: the store cannot be asked."""
    if not runtime.is_installed() or context.testing:
        return []
    from tenant_router.lifecycle import Writer  # every server imports the checks, and none of them writes

    writer = Writer(runtime.get())
    try:
        index = writer.index()
        tenant_ids = [t for t, entry in index.items() if t != META_ID and packed_state(entry) != DELETED]
        return [*_templates_of_nobody(writer, tenant_ids), *_hosts(tenant_ids)]
    except TenantRouterError as error:
        hint = "What the settings say was not compared with the tenants: check again when the store answers."
        return [Warning(f"The config store was not asked: {error}.", hint=hint, id="tenant_router.W025")]


def _templates_of_nobody(writer: Writer, tenant_ids: Sequence[str]) -> Iterator[CheckMessage]:
    """A central database that was not named as one: no tenant with such a record can be served."""
    orms = runtime.get().orms
    left, readable = {(orm_id, alias) for orm_id, orm in orms.items() for alias in orm.template_aliases}, 0
    for start in range(0, len(tenant_ids), PAGE):
        for tenant_id, stored in writer.records(tenant_ids[start : start + PAGE]).items():
            record = writer.decoded(tenant_id, stored)
            readable += record is not None
            left -= {(orm_id, alias) for orm_id in orms for alias in section(record, orm_id)}
        if not left:
            return
    keys: Mapping[str, str] = {orm.orm_id: orm.settings_key for orm in conf.orms}
    for orm_id, alias in sorted(left) if readable else ():
        yield Error(
            f"{keys[orm_id]}[{alias!r}] is replicated for each tenant, and no tenant's record has it.",
            hint=(
                f"If it is central, name it in {ORMS}[{orm_id!r}]['OPTIONS']['RESERVED_CONN_ALIASES']; "
                "else give it to the tenants, which are refused without it."
            ),
            id="tenant_router.E023",
        )


def _hosts(tenant_ids: Sequence[str]) -> Iterator[CheckMessage]:
    if not tenant_ids or conf.middleware["TENANT_ID_RESOLVER"] != BY_HOST:
        return
    if not any(validate_host(tenant_id, settings.ALLOWED_HOSTS) for tenant_id in tenant_ids):
        yield Error(
            f"ALLOWED_HOSTS is {settings.ALLOWED_HOSTS!r} and refuses the host of every tenant.",
            hint="Set it to ['*']: the tenants are the list of hosts, and any other host gets 404.",
            id="tenant_router.E024",
        )
