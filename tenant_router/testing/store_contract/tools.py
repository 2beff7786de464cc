"""Helpers of the contract's tests."""

from __future__ import annotations

import os
import signal
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress

from tenant_router.config_store.base import ACTIVE, ConfigStore, Head, Op, unpack

State = dict[str, tuple[int, str, str]]


def commit(store: ConfigStore, *ops: Op, epoch: str | None = None) -> int:
    """Commit ``ops`` under a new request id."""
    return store.commit(ops, request_id=uuid.uuid4().hex, epoch=epoch)


def put(
    store: ConfigStore,
    tenant_id: str,
    body: bytes = b"body",
    *,
    expect: int | None = None,
    state: str = ACTIVE,
    epoch: str | None = None,
) -> int:
    """Commit one record and return its revision."""
    return commit(store, Op(tenant_id, state, body, expect), epoch=epoch)


def pages_of(store: ConfigStore, limit: int) -> Iterator[Mapping[str, str]]:
    """The pages of the whole index."""
    cursor, page = store.scan("", limit)
    yield page
    while cursor:
        cursor, page = store.scan(cursor, limit)
        yield page


def state_of(page: Mapping[str, str]) -> State:
    """Index entries by tenant."""
    return {tenant_id: unpack(entry) for tenant_id, entry in page.items()}


def index_of(store: ConfigStore) -> State:
    """The whole index by tenant."""
    return {key: entry for page in pages_of(store, 500) for key, entry in state_of(page).items()}


def replay(store: ConfigStore, head: Head, state: State) -> Head:
    """Bring ``state`` from ``head`` to the present, and return where that is."""
    while events := store.changes(head, limit=100):
        state.update({event.tenant_id: (event.rev, event.state, event.digest) for event in events})
        head = Head(head.epoch, events[-1].rev, events[-1].chain)
    return head


def verbs(store: ConfigStore, head: Head) -> list[Callable[[], object]]:
    """One call of each verb, reading before and after a subscription alike."""
    return [
        store.head,
        lambda: store.scan("", 10),
        lambda: store.get_many(["a"]),
        lambda: put(store, "a"),
        lambda: store.changes(head, wait=0.2),
        lambda: store.changes(head),
    ]


def in_time(measure: Callable[[], float], limit: float) -> bool:
    """Whether it takes less than ``limit`` seconds once out of five times, as the machine may stand still at any."""
    return any(measure() < limit for _ in range(5))


@contextmanager
def later(action: Callable[[], object], delay: float = 0.2) -> Iterator[list[float]]:
    """Run ``action`` in a thread after ``delay`` seconds; yields the list that gets the moment of it."""
    moments: list[float] = []

    def run() -> None:
        time.sleep(delay)
        moments.append(time.monotonic())
        action()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield moments
    finally:
        thread.join()


def in_child(action: Callable[[], object], timeout: int = 60) -> int:
    """The exit code of a forked child that runs ``action``: 0 when it neither raises nor takes ``timeout`` seconds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # threads are running, which is the point
        pid = os.fork()
    if pid == 0:
        code = 1
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(timeout)
        with suppress(BaseException):
            action()
            code = 0
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
