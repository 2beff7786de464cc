"""All orders in which several actors may run, one piece after the other.

An actor is a function that runs in a greenlet of its own and is interrupted at points: before and
after each conversation with the store, before the publisher's lock, and, if that is asked for,
in the middle of a publication. A schedule says who goes on at each of them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from greenlet import getcurrent, greenlet

from tenant_router.config_store.backends.memory import MemoryStore


class Schedule:
    """One run. ``choices``: which of those who can go on does so, at each point; the first where they end."""

    def __init__(self, choices: list[int]) -> None:
        self._choices = choices
        self.taken: list[tuple[int, int]] = []  # what was chosen, of how many
        self._actors: list[greenlet] = []
        self._waiting: dict[greenlet, SteppedLock] = {}

    def add(self, act: Callable[[], object]) -> None:
        self._actors.append(greenlet(act))

    def point(self, lock: SteppedLock | None = None) -> None:
        """The running actor can be interrupted here, and must be while somebody else has ``lock``."""
        current = getcurrent()
        if current not in self._actors:
            return
        if lock is not None:
            self._waiting[current] = lock
        current.parent.switch()
        self._waiting.pop(current, None)

    def run(self, look: Callable[[], None]) -> None:
        """Run all actors to their ends, and ``look`` between any two pieces."""
        while actors := [one for one in self._actors if not one.dead]:
            ready = [one for one in actors if one not in self._waiting or self._waiting[one].free_for(one)]
            assert ready, "they wait for each other"
            at = len(self.taken)
            choice = self._choices[at] if at < len(self._choices) else 0
            self.taken.append((choice, len(ready)))
            ready[choice].switch()
            look()


def schedules(run: Callable[[Schedule], None], most: int, seed: int = 1) -> int:
    """Run all schedules, the first half of ``most`` in order and then others at random; returns how many ran."""
    choices: list[int] | None = []
    count = 0
    while choices is not None and count < most // 2:
        schedule = Schedule(choices)
        run(schedule)
        choices, count = _following(schedule.taken), count + 1
    dice = random.Random(seed)
    while choices is not None and count < most:
        run(RandomSchedule(dice))
        count += 1
    return count


def _following(taken: list[tuple[int, int]]) -> list[int] | None:
    for at in range(len(taken) - 1, -1, -1):
        choice, of = taken[at]
        if choice + 1 < of:
            return [*(chosen for chosen, _ in taken[:at]), choice + 1]
    return None


class RandomSchedule(Schedule):
    def __init__(self, dice: random.Random) -> None:
        super().__init__([])
        self._choices = _Dice(dice, self)  # type: ignore[assignment]


class _Dice:
    """Chooses while it is asked, among those whom ``Schedule.run`` has found."""

    def __init__(self, dice: random.Random, schedule: Schedule) -> None:
        self._dice, self._schedule = dice, schedule

    def __len__(self) -> int:
        return 1 << 30

    def __getitem__(self, at: int) -> int:
        ready = sum(
            not one.dead and (one not in self._schedule._waiting or self._schedule._waiting[one].free_for(one))
            for one in self._schedule._actors
        )
        return self._dice.randrange(ready)


class SteppedLock:
    """In the place of the publisher's ``RLock``."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule, self._owner, self._depth = schedule, None, 0

    def free_for(self, actor: greenlet) -> bool:
        return self._owner in (None, actor)

    @property
    def free(self) -> bool:
        return self._owner is None

    def acquire(self, timeout: float = -1) -> bool:
        if self._owner is not getcurrent():
            self._schedule.point(self)
        assert self._owner in (None, getcurrent())
        self._owner, self._depth = getcurrent(), self._depth + 1
        return True

    def release(self) -> None:
        self._depth -= 1
        if not self._depth:
            self._owner = None

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *exception: object) -> None:
        self.release()


class SteppedStore(MemoryStore):
    """A store whose readers can be interrupted before they ask, and when they have the answer in hand."""

    schedule: Schedule

    def _stepped(self, ask: Callable[[], object]) -> object:
        self.schedule.point()
        answer = ask()
        self.schedule.point()
        return answer

    def head(self):
        return self._stepped(super().head)

    def index(self):
        return self._stepped(super().index)

    def get_many(self, tenant_ids):
        return self._stepped(lambda: MemoryStore.get_many(self, tenant_ids))

    def _log(self, rev, limit):
        return self._stepped(lambda: MemoryStore._log(self, rev, limit))


def steps(count: int, step: Callable[[], object]) -> Callable[[], None]:
    """An actor that does it so many times."""

    def act() -> None:
        for _ in range(count):
            step()

    return act


def each(schedule: Schedule, acts: Iterator[Callable[[], object]] | list[Callable[[], object]]) -> Callable[[], None]:
    """An actor that can be interrupted between two of its acts."""

    def act() -> None:
        for one in acts:
            schedule.point()
            one()

    return act
