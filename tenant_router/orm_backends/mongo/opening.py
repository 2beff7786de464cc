"""That one thread opens a client, and others wait for it."""

from __future__ import annotations

import copy
import threading
from concurrent.futures import Future


class Opening:
    """A client is being opened, by the thread that makes this."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()
        self._ended: Future[None] = Future()

    @property
    def is_mine(self) -> bool:
        """Whether this thread opens it: a signal's handler must not wait for the thread that it has interrupted."""
        return self._thread == threading.get_ident()

    def succeeded(self) -> None:
        """There is a client."""
        self._ended.set_result(None)

    def failed(self, error: BaseException) -> None:
        """There is none; whoever waits raises ``error``, too."""
        if isinstance(error, Exception):
            self._ended.set_exception(error)
        else:
            self._ended.set_result(None)  # this thread was told to stop: whoever waits tries by himself

    def wait(self) -> None:
        """Wait until there is a client. Raises what opening it has raised."""
        error = self._ended.exception()
        if error is not None:
            raise copy.copy(error) from error  # one object that several threads raise would grow its traceback
