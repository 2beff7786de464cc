"""How a server begins: it reads its store, or stops with one line that says why it cannot."""

from __future__ import annotations

import logging
import random
import time
from typing import TYPE_CHECKING

from tenant_router.conf import Conf
from tenant_router.exceptions import BootError, Denied, EpochChanged, LastGoodUnusable, StoreError
from tenant_router.reactive.pipeline import Fetch, Pipeline
from tenant_router.reactive.reflector import Reflector

if TYPE_CHECKING:
    from tenant_router.reactive.last_good import LastGood

logger = logging.getLogger(__name__)

SAMPLE = 20  # records that are looked at before the first request; all are prepared at their first use
NACK_FLOOR = 10  # so many refused records stop no server whatever share of all they are, unless they are all


def read_store(conf: Conf, reflector: Reflector, last_good: LastGood | None) -> None:
    """Synchronise, or start from ``last_good`` where ``BOOT`` says so. Raises ``BootError``."""
    deadline = time.monotonic() + conf.store_options["BOOT_TIMEOUT"]
    while True:
        try:
            reflector.synchronise()
        except StoreError as error:
            if conf.store_options["BOOT"] == "last_good" and _restore(reflector, last_good, error):
                return
            if isinstance(error, EpochChanged | Denied) or time.monotonic() >= deadline:
                raise BootError(one_line(conf, error)) from error
            time.sleep(random.uniform(0.05, 0.5))
        else:
            return


def _restore(reflector: Reflector, last_good: LastGood | None, why: StoreError) -> bool:
    if last_good is None:
        return False
    try:
        age, head, index = last_good.index()
    except LastGoodUnusable as error:
        logger.warning("%s", error)
        return False
    logger.critical("starting from the last-good file of %.0f s ago with %d tenants: %s", age, len(index), why)
    reflector.restore(age, head, index, last_good.get_many)
    return True


def check_records(conf: Conf, pipeline: Pipeline, fetch: Fetch) -> None:
    """Stop a server that would refuse more than ``MAX_BOOT_NACK`` of its tenants: its settings do not fit its store.

    A few records are looked at, and all that would be read eagerly only where too many of those are bad.
    A few bad ones are their tenants' matter, whatever share of a small fleet they are. Raises ``BootError``.
    """
    limit, tenant_ids = conf.store_options["MAX_BOOT_NACK"], pipeline.registry.get_known_ids()
    for size in (SAMPLE, max(SAMPLE, conf.store_options["EAGER_MAX"])):
        looked_at = tenant_ids[:: max(1, -(-len(tenant_ids) // size))]  # evenly spread, at most ``size``
        try:
            refused = pipeline.refused_among(looked_at, fetch)
        except StoreError:
            return  # it went away again: nothing is known of them
        if len(refused) <= max(1, limit * len(looked_at)):
            return
    if len(refused) <= NACK_FLOOR and len(refused) < len(looked_at):
        return
    raise BootError(
        f"{len(refused)} of {len(looked_at)} records of service {conf.service!r} are refused here, and "
        f"OPTIONS['MAX_BOOT_NACK'] allows {limit:g} of them: is SERIALIZER the writer's? The last one: {refused[-1]}"
    )


def one_line(conf: Conf, error: StoreError) -> str:
    """What an operator reads of a store that cannot be used."""
    if isinstance(error, EpochChanged):
        return (
            f"the config store holds nothing for service {conf.service!r}: load a configuration first "
            "(python manage.py load_tenant_config)"
        )
    return f"the config store of service {conf.service!r} cannot be read: {error}"
