"""Starting, watching and stopping the demo's processes."""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from demo_stack.errors import DemoError, Interrupted
from demo_stack.state import SITE

Command = Sequence[str | Path]

STOP_SECONDS = 12.0
START_SECONDS = 60.0
STEP = 0.03
TAIL = 20


@dataclass
class Child:
    """One process that the demo started, in a session of its own."""

    name: str
    log: Path
    process: subprocess.Popen[bytes]
    stop_signal: signal.Signals

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def ask_to_stop(self) -> None:
        if self.alive:
            self.process.send_signal(self.stop_signal)

    def finish(self, deadline: float) -> None:
        """Wait for its end, then see to it that nothing of its process group remains."""
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(max(0.0, deadline - time.monotonic()))
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def failure(self, what: str) -> DemoError:
        lines = self.log.read_text(errors="replace").splitlines()[-TAIL:]
        quoted = "".join(f"\n    {line}" for line in lines)
        return DemoError(f"{self.name} {what}. The end of {self.log}:{quoted}")


@dataclass
class Processes:
    """The processes of one command. Signals only set a flag, so that none arrives between two steps unseen."""

    logs: Path
    on_change: Callable[[Sequence[Child]], None] = lambda children: None
    children: list[Child] = field(default_factory=list)
    stopping: bool = False

    def listen_to_signals(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as under nohup
            signal.signal(signal.SIGHUP, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.stopping = True

    def pause(self, seconds: float = STEP) -> None:
        if self.stopping:
            raise Interrupted
        time.sleep(seconds)

    def start(
        self,
        name: str,
        command: Command,
        env: Mapping[str, str],
        *,
        user: str | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
        pass_fds: Iterable[int] = (),
    ) -> Child:
        self.pause(0)
        log = self.logs / f"{name}.log"
        child = Child(name, log, _spawn(log, command, env, user, pass_fds), stop_signal)
        self.children.append(child)
        self.on_change(self.children)
        return child

    def run(self, commands: Mapping[str, Command], env: Mapping[str, str]) -> None:
        """Run commands side by side, each to its end."""
        running = [self.start(name, command, env) for name, command in commands.items()]
        while any(child.alive for child in running):
            self.pause()
        for child in running:
            if child.process.returncode:
                raise child.failure(f"failed (exit code {child.process.returncode})")
            self.children.remove(child)

    def wait_for(self, child: Child, answers: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not answers():
            self.require_alive()
            if time.monotonic() > deadline:
                raise child.failure(f"did not answer within {START_SECONDS:.0f} seconds")
            self.pause()

    def require_alive(self) -> None:
        for child in self.children:
            if not child.alive:
                raise child.failure(f"ended (exit code {child.process.returncode})")

    def watch(self) -> None:
        while True:
            self.require_alive()
            self.pause(0.2)

    def stop(self) -> None:
        """Stop everything: what uses the services first, the services after it."""
        services = [child for child in self.children if child.name in ("redis", "postgresql")]
        others = [child for child in self.children if child not in services]
        for group in (others, services):
            for child in group:
                child.ask_to_stop()
            deadline = time.monotonic() + STOP_SECONDS
            for child in group:
                child.finish(deadline)
        self.children.clear()
        self.on_change(self.children)


def _spawn(
    log: Path, command: Command, env: Mapping[str, str], user: str | None, pass_fds: Iterable[int]
) -> subprocess.Popen[bytes]:
    group = pwd.getpwnam(user).pw_gid if user else None
    with log.open("wb") as output:
        return subprocess.Popen(
            command,
            cwd=SITE,
            env=dict(env),
            user=user,
            group=group,
            extra_groups=[] if user else None,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=tuple(pass_fds),
        )
