"""Loads the managers that ``TENANT_ROUTER_ORM_SETTINGS`` names."""

from __future__ import annotations

from django.utils.module_loading import import_string

from tenant_router.conf import ORMS, Conf, OrmConf
from tenant_router.exceptions import ConfigurationError
from tenant_router.orm_backends.base import BaseOrmManager

# The reserved ORM ids and the managers that ship for them.
SHIPPED = {
    "django_orm": "tenant_router.orm_backends.django_orm.manager.DjangoOrmManager",
    "pymodm_orm": "tenant_router.orm_backends.pymodm_orm.manager.PymodmOrmManager",
    "mongoengine_orm": "tenant_router.orm_backends.mongoengine_orm.manager.MongoengineOrmManager",
    "es_orm": "tenant_router.orm_backends.es_orm.manager.EsOrmManager",
}


def load_managers(conf: Conf) -> dict[str, BaseOrmManager]:
    """One manager per configured ORM, by ORM id. Raises ``ConfigurationError``."""
    return {orm.orm_id: _load(conf, orm) for orm in conf.orms}


def _load(conf: Conf, orm: OrmConf) -> BaseOrmManager:
    path = orm.manager or SHIPPED.get(orm.orm_id)
    if path is None:
        raise ConfigurationError(
            f"{ORMS}[{orm.orm_id!r}] has no 'MANAGER', and none ships for that id (there are: {', '.join(SHIPPED)})"
        )
    try:
        manager = import_string(path)
    except ImportError as error:
        raise ConfigurationError(f"{ORMS}[{orm.orm_id!r}]['MANAGER']: cannot import {path!r}: {error}") from error
    if not (isinstance(manager, type) and issubclass(manager, BaseOrmManager)):
        raise ConfigurationError(f"{ORMS}[{orm.orm_id!r}]['MANAGER']: {path!r} is no subclass of BaseOrmManager")
    templates = conf.templates_of(orm)
    try:
        return manager(orm.orm_id, templates, orm.options)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"{ORMS}[{orm.orm_id!r}]['OPTIONS']: {path!r} refuses them: {error}") from error
