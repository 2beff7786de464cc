"""A demo that is killed cannot tidy up; the next one does it, from the note that the first kept."""

import signal
from collections.abc import Sequence
from contextlib import suppress

import psutil

from demo_stack.processes import STOP_SECONDS, Child
from demo_stack.state import State


def note(state: State, children: Sequence[Child]) -> None:
    state.write(processes=[_identity(child.process.pid) for child in children])


def stop_leftovers(state: State) -> None:
    found = [process for pid, started in state.read().get("processes", []) for process in _family(pid, started)]
    for process in found:
        _ask_to_stop(process)
    _, alive = psutil.wait_procs(found, STOP_SECONDS)
    for process in alive:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, STOP_SECONDS)
    state.write(processes=[], ready=False)


def _identity(pid: int) -> tuple[int, float]:
    """A pid and its start, because the system hands out pids again."""
    try:
        return pid, psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:
        return pid, 0.0


def _family(pid: int, started: float) -> list[psutil.Process]:
    try:
        leader = psutil.Process(pid)
        return [leader, *leader.children(recursive=True)] if leader.create_time() == started else []
    except psutil.NoSuchProcess:
        return []


def _ask_to_stop(process: psutil.Process) -> None:
    """SIGINT: the fast way down for PostgreSQL, and an orderly one for all others."""
    with suppress(psutil.NoSuchProcess):
        process.send_signal(signal.SIGINT)
