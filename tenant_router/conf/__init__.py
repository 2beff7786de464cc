"""The project's settings: ``settings`` is the one reader of them, ``problems`` says what is wrong with them.

Other rooms import ``conf`` (the settings of this process) and the names of the settings from here.
"""

from tenant_router.conf.settings import (
    BOOTSTRAP,
    CACHES,
    CELERY,
    CONTEXT,
    MIDDLEWARE,
    ORMS,
    SERVICE,
    STORE,
    TESTS,
    Conf,
    OrmConf,
    conf,
)

__all__ = [
    "BOOTSTRAP",
    "CACHES",
    "CELERY",
    "CONTEXT",
    "MIDDLEWARE",
    "ORMS",
    "SERVICE",
    "STORE",
    "TESTS",
    "Conf",
    "OrmConf",
    "conf",
]
