"""Why a record is not taken: it is at fault, or something else is, for now."""

from __future__ import annotations

import logging
import math
import random
import sys
import time

from tenant_router.config_store.base import META_ID, StoredRecord, unpack
from tenant_router.exceptions import RecordInvalid, SerializerError
from tenant_router.identity import no_tenant_ids
from tenant_router.managers.registry import Refusal

logger = logging.getLogger(__name__)

# seconds: the first and the longest pause before a record that could not be prepared is tried again
RETRY = (0.25, 60.0)


def refusal_of(
    tenant_id: str,
    entry: str,
    known: Refusal | None,
    reason: str,
    *,
    lasting: bool,
    trace: Exception | None = None,
) -> Refusal:
    """The refusal of a tenant at ``entry``, after the ``known`` one; ``lasting`` where the record is at fault.

    It is logged as an error the first time, with the place where ``trace`` was raised: its message and its traceback
    may show what the record says.
    """
    rev = unpack(entry)[0]
    tries = known.tries + 1 if known is not None and known.revision == rev else 0
    pause = min(RETRY[1], RETRY[0] * 2 ** min(tries, 20)) * random.uniform(0.75, 1.25)
    logger.log(
        logging.DEBUG if tries else logging.ERROR,
        "tenant %s: the record of revision %d is refused: %s" if lasting else "tenant %s at revision %d: %s",
        tenant_id,
        rev,
        reason if lasting else f"{reason}{_place(trace)}; it is tried again",
        extra={"tenant_id": tenant_id},
    )
    return Refusal(rev, reason, math.inf if lasting else time.monotonic() + pause, tries)


def _place(error: Exception | None) -> str:
    trace = error.__traceback__ if error else None
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f" ({trace.tb_frame.f_code.co_filename}:{trace.tb_lineno})" if trace else ""


def of_tenants(index: dict[str, str]) -> dict[str, str]:
    """``index`` without what is no tenant: the reserved record, and names that are no ids, whoever wrote them."""
    others = no_tenant_ids(index)
    for name in others:
        del index[name]
    bad = [name[:80] for name in others if name != META_ID]
    if bad:
        logger.error("%d names in the config store are no tenant ids and are left out, such as %r", len(bad), bad[0])
    return index


def misfit(announced: str, record: StoredRecord | None) -> str | None:
    """Why a record cannot be the one that the index or the log announces, nor a later one."""
    said = unpack(announced)
    if record is None:
        return f"the store has no readable record of revision {said[0]}"
    if record.rev < said[0]:
        return f"the store's record is of revision {record.rev}, and its log says {said[0]}"
    if record.rev == said[0] and record[:3] != said:
        return "the stored record is not the one that the index announces"
    return None


def is_time_limit(error: Exception) -> bool:
    """Whether it is Celery's word to the task that is running, which happened to prepare a record just then."""
    # billiard.pool's signal handler raises it in the middle of whatever the main thread does
    billiard = sys.modules.get("billiard.exceptions")
    return billiard is not None and isinstance(error, billiard.SoftTimeLimitExceeded)


def reason_of(error: Exception) -> str:
    """What is told of an error; the words of others may hold values, and are left out."""
    if isinstance(error, RecordInvalid | SerializerError):
        return str(error)
    return f"preparing it failed with {type(error).__name__}"
