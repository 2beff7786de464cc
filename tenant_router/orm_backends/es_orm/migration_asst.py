"""The migration assistant: what ``OPTIONS['SCHEMA']`` lists is created, or brought up to date, for each tenant."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from django.utils.module_loading import import_string
from elasticsearch import ApiError, BadRequestError, Elasticsearch, SerializationError

from tenant_router import identity
from tenant_router.context_decorators import tenant_context_bind
from tenant_router.exceptions import ConfigurationError, TenantRouterError
from tenant_router.orm_backends.base import BaseOrmMigrationAsst
from tenant_router.tenant_context import TenantContext

# Where the reasons that Elasticsearch gives quote the value of a field, or an id (DocumentParsingException and others).
_OF_DOCUMENTS = ("document_parsing_exception", "document with id", "field's value", "For input string", "[_id]")


@dataclass(frozen=True)
class Index:
    """An index that each tenant has. It is created once; later, its mappings and aliases are put again."""

    name: str
    mappings: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    aliases: Mapping[str, Any] = field(default_factory=dict)
    using: str = "default"

    def put(self, client: Elasticsearch) -> None:
        """Create or update it."""
        if not client.indices.exists(index=self.name):
            parts = {"mappings": self.mappings, "settings": self.settings, "aliases": self.aliases}
            client.indices.create(index=self.name, body={key: dict(part) for key, part in parts.items()})
            return
        if self.mappings:
            client.indices.put_mapping(index=self.name, body=dict(self.mappings))
        for alias, about in self.aliases.items():
            client.indices.put_alias(index=self.name, name=alias, body=dict(about))


@dataclass(frozen=True)
class Template:
    """An index template that each tenant has. ``body``: as for ``indices.put_index_template``."""

    name: str
    body: Mapping[str, Any]
    using: str = "default"

    def put(self, client: Elasticsearch) -> None:
        """Create or replace it."""
        client.indices.put_index_template(name=self.name, body=dict(self.body))


@dataclass(frozen=True)
class _Document:
    """A class derived from ``elasticsearch.dsl.Document``."""

    document: Any

    @property
    def name(self) -> str:
        return str(self.document._index._name)

    @property
    def using(self) -> str:
        return str(self.document._index._using)

    def put(self, client: Elasticsearch) -> None:
        self.document.init(using=client)


class NotMigrated(TenantRouterError):
    """What went wrong, where the error itself quotes documents."""


def _without_values(error: Exception) -> Exception:
    """The error, without what documents hold: an error's line is shown and kept where documents must not be."""
    if isinstance(error, SerializationError):  # which shows the whole body
        return NotMigrated("a body that cannot be written as JSON (SerializationError)")
    if isinstance(error, ApiError) and any(told in str(error.body) for told in _OF_DOCUMENTS):
        return NotMigrated(f"{type(error).__name__} ({error.status_code}, {error.error!r}) about a document")
    return error


class EsMigrationAsst(BaseOrmMigrationAsst):
    """Puts each :class:`Index`, :class:`Template` and document class of ``SCHEMA`` for each tenant.

    ``SCHEMA`` is the dotted path of a list of them, or of a function that returns one. Those of a
    reserved alias are put once.
    """

    manager: Any  # the EsOrmManager, whose module imports this one

    def perform_migrate(self) -> None:
        """Migrate all tenants, then the reserved aliases; one that fails is reported and the next is tried."""
        wanted = list(self._schema())
        for context in self.run.contexts:
            for alias in self.manager.template_aliases:
                put = partial(self._put_for, context, wanted, alias)
                self._report(identity.alias_for(context.id, alias), put)
        for alias in self.manager.reserved_aliases if self.run.reserved else ():
            self._report(alias, partial(self._put, self.manager.central[alias], wanted, alias, alias))

    def _report(self, shown: str, put: Callable[[], None]) -> None:
        try:
            put()
        except Exception as error:  # one tenant's failure, of whatever kind, must not stop the others
            self.run.report(shown, _without_values(error))
        else:
            self.run.report(shown, None)

    def _put_for(self, context: TenantContext, wanted: Iterable[Any], alias: str) -> None:
        with tenant_context_bind(context):
            client = context.parts[self.manager.orm_id][alias].client
            self._put(client, wanted, alias, identity.alias_for(context.id, alias))

    def _put(self, client: Elasticsearch, wanted: Iterable[Any], alias: str, shown: str) -> None:
        for definition in wanted:
            if definition.using == alias:
                self._put_one(self.named(shown), client, definition)

    def _put_one(self, shown: str, client: Elasticsearch, definition: Any) -> None:
        if self.run.plan:
            self.run.write(f"{shown}: would put {definition.name}")
            return
        try:
            definition.put(client)
        except BadRequestError as error:
            if error.error != "resource_already_exists_exception":
                raise
            definition.put(client)  # another run was first, after this one had found that there is none
        if self.run.verbosity > 1:
            self.run.write(f"{shown}: put {definition.name}")

    def _schema(self) -> Iterator[Any]:
        path = self.manager.options.get("SCHEMA")
        if path is None:
            return
        try:
            found = import_string(path)
        except ImportError as error:
            raise ConfigurationError(f"OPTIONS['SCHEMA'] of {self.manager.orm_id!r}: {error}") from error
        for definition in found() if callable(found) else found:
            yield definition if isinstance(definition, Index | Template) else _Document(definition)
