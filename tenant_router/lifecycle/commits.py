"""Committing so that the outcome is known: a commit whose answer was lost is asked for again."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence

from tenant_router.config_store.base import Op, unpack
from tenant_router.exceptions import Conflict, RecordInvalid, StoreError, StoreUnavailable
from tenant_router.lifecycle.fence import CHUNK, Fence

INSIST = 5.0  # seconds for which a commit is asked for again: a store that fails over or restarts is back by then
PAUSE = (0.05, 1.0)  # seconds between two attempts, at first and at most


class PartlyCommitted(StoreError):
    """A load of several chunks stopped between two of them; running it again completes it."""


class Unconfirmed(StoreError):
    """The store does not say whether it has written a commit."""


def commit(store: Fence, ops: Sequence[Op], epoch: str | None, progress: Callable[[int], None]) -> list[int]:
    """Write ``ops``, ``CHUNK`` at once, and return the revision of each; ``progress`` hears each chunk's last.

    Raises ``StoreError`` with nothing written, ``Unconfirmed``, or ``PartlyCommitted`` naming the last revision.
    """
    revisions: list[int] = []
    for start in range(0, len(ops), CHUNK):
        chunk = ops[start : start + CHUNK]
        try:
            if start and epoch is None:  # the first chunk has begun a history
                epoch = store.head().epoch
            last = _commit_surely(store, chunk, epoch)
        except (StoreError, RecordInvalid) as error:
            if start == 0:
                raise
            raise PartlyCommitted(
                f"stopped after {start} of {len(ops)} changes, at revision {revisions[-1]}: {error}; "
                "run the command again to complete it"
            ) from error
        revisions += range(last - len(chunk) + 1, last + 1)
        progress(last)
    return revisions


def commit_unchanged(
    store: Fence, ops: Sequence[Op], epoch: str | None, without: Callable[[list[Op], set[str]], list[Op]]
) -> tuple[int, set[str]]:
    """Write those of ``ops`` whose tenants still have the revision that they expect.

    ``without(ops, stale)``: which of ``ops`` may be written although those of the tenants ``stale`` are not.
    Returns the last revision (0 if nothing was written) and the ids of the tenants that somebody else has
    changed meanwhile. Raises ``StoreError``.
    """
    revision, changed, left = 0, set[str](), list(ops)
    while left:
        try:
            revision = commit(store, left[:CHUNK], epoch, lambda last: None)[-1]
            left = left[CHUNK:]
        except Conflict:
            index = store.index()
            stale = {op.tenant_id for op in left if _revision_of(index.get(op.tenant_id)) != op.expect}
            if not stale:
                raise
            changed |= stale
            left = without([op for op in left if op.tenant_id not in stale], stale)
    return revision, changed


def _commit_surely(store: Fence, ops: Sequence[Op], epoch: str | None) -> int:
    """Ask with one request id until the store answers: what it has done already, it does not do again."""
    request_id, deadline, pause = uuid.uuid4().hex, float("inf"), PAUSE[0]
    while True:
        try:
            return store.commit(ops, request_id=request_id, epoch=epoch)
        except StoreUnavailable as error:
            deadline = min(deadline, time.monotonic() + INSIST)
            if time.monotonic() + pause > deadline:
                return _found(store, ops, error)
        time.sleep(pause)
        pause = min(2 * pause, PAUSE[1])


def _found(store: Fence, ops: Sequence[Op], error: StoreUnavailable) -> int:
    """The revision of a commit that was not answered, if the store has it; else raises ``error``."""
    try:
        index = store.index()
    except StoreError:
        raise Unconfirmed(
            f"{error}; whether it has written the change is not known: run the command again when it answers"
        ) from error
    for position, op in enumerate(ops):
        if _is_written(op, index.get(op.tenant_id)):
            return _revision_of(index[op.tenant_id], deleted=True) + len(ops) - 1 - position
    raise StoreUnavailable(f"{error} (nothing was written)") from error


def _is_written(op: Op, entry: str | None) -> bool:
    # Bodies carry a nonce, so nobody else's record has the digest of this one.
    if entry is None:
        return False
    rev, state, digest = unpack(entry)
    return (state, digest) == (op.state, op.digest) and rev != op.expect


def _revision_of(entry: str | None, deleted: bool = False) -> int:
    """What ``Op.expect`` is compared with: 0 for a tenant that was deleted, unless ``deleted`` ones are asked for."""
    rev, state, _ = unpack(entry) if entry else (0, "", "")
    return 0 if state == "X" and not deleted else rev
