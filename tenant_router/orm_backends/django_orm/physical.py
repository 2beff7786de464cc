"""A physical connection: what is counted, kept open and closed, whoever borrows it."""

from __future__ import annotations

import logging
from typing import Any

from tenant_router.orm_backends.django_orm.databases import Database

logger = logging.getLogger(__name__)


class PhysicalConnection:
    """One open connection to a database, lent to the wrapper of one thread, alias and revision.

    ``counted``: whether it has a place in the budget. Between units of work it may be reclaimed from its borrower.
    """

    __slots__ = ("__weakref__", "borrower", "counted", "database")

    def __init__(self, borrower: Any, database: Database) -> None:
        self.borrower = borrower  # a TenantWrapper
        self.database = database
        self.counted = True

    def reclaim(self) -> bool:
        """Take it back from an idle borrower, which connects anew when it is used next; the budget's lock is held.

        ``False`` where it is not to be had: something is half done on it.
        """
        borrower = self.borrower
        if borrower.users or not borrower.may_rest():
            return False
        # A copy closes it, with whatever its backend does then, while the borrower may connect again already.
        self.borrower = object.__new__(type(borrower))
        self.borrower.__dict__.update(borrower.__dict__)
        borrower.let_go()
        return True

    def idle_until(self) -> float | None:
        """``time.monotonic()`` when it is older than ``CONN_MAX_AGE``; ``None`` if it may stay idle for ever.

        With an age of 0 Django closes it at the end of each request; scripts go on with it. 0 where it should be
        closed already, and something was half done on it when its last unit ended.
        """
        if self.database.retired or self.database.pool is not None:
            return 0.0
        return self.borrower.close_at if self.borrower.settings_dict["CONN_MAX_AGE"] else None

    def close(self) -> None:
        """Close it, in whichever thread. Never raises: nobody waits for it any more."""
        borrower = self.borrower
        borrower.inc_thread_sharing()
        try:
            borrower.abandon()
        except Exception as error:  # of any driver, on a connection that may be broken
            logger.info("closing a connection of %r: %s", self.database.alias, type(error).__name__)
