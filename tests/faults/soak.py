"""Random faults and random writes against many processes, and a checker: ``python -m tests.faults.soak --minutes 5``.

The rules that are checked: each process takes the revisions of a tenant in their order (a restore
begins another one), and none that was never committed; a forked child that says READY has what was
committed before the fork; when the faults end, each process serves exactly what the store has, is
the process that it was, and says so in the fleet's status; a process that is cut off says STALE.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")

from tenant_router.config_store import codec
from tenant_router.config_store.base import DELETED, Op
from tenant_router.config_store.serializers.json import JSONSerializer
from tenant_router.exceptions import StoreError
from tenant_router.reactive.shrinking import ACCEPTED
from tests.faults.followers import Follower
from tests.processes import Project
from tests.proxy import Proxy
from tests.servers import RedisServer, short_directory

IDLE = 0.5  # seconds
TENANTS = [f"t{number}.test" for number in range(40)]
HEALING = 60.0  # seconds for which nobody disturbs before the last look
PATIENCE = 30.0  # seconds that each process has at least in the last look, however long the others took
_TAKEN = re.compile(r"applied tenant=(\S+) revision=(\d+) state=(\w).*? pid=(\d+)")
_READS_ALL = ("synchronised at revision", "reading the index in")  # what a process says of another history


@dataclass
class History:
    """Every revision that may have been committed, and what was said to be acknowledged."""

    written: dict[int, tuple[str, str, str]] = field(default_factory=dict)  # revision -> tenant, state, database
    acknowledged: int = 0
    discarded: set[tuple[int, str, str]] = field(default_factory=set)  # revision, tenant and state, by a restore
    restores: list[float] = field(default_factory=list)  # when they began

    def roll_back(self, revision):
        """Only what was written up to ``revision`` is left."""
        for later in [known for known in self.written if known > revision]:
            self.discarded.add((later, *self.written.pop(later)[:2]))
        self.acknowledged = revision


class Writer(threading.Thread):
    """Creates, changes, breaks and deletes tenants; repeats a write whose answer did not come."""

    def __init__(self, store, ended, rng):
        super().__init__(daemon=True)
        self.store, self.ended, self.rng, self.history = store, ended, rng, History()
        self.lock = threading.Lock()  # who has it keeps it from writing

    def run(self):
        while not self.ended.wait(self.rng.choice([0.0, 0.01, 0.05, 0.3])):
            batch = [self._change() for _ in range(self.rng.choice([1, 1, 1, 2, 20]))]
            with self.lock:
                self.commit(batch)

    def commit(self, batch):
        ops = [Op(tenant_id, state, _body(tenant_id, database)) for tenant_id, state, database in batch]
        request_id = uuid.uuid4().hex
        while True:
            try:
                last = self.store.commit(ops, request_id=request_id)
                break
            except StoreError:
                time.sleep(0.05)
        self.history.acknowledged = last
        for offset, change in enumerate(reversed(batch)):
            self.history.written[last - offset] = change

    def _change(self):
        tenant_id, kind = self.rng.choice(TENANTS), self.rng.random()
        if kind < 0.1:
            return tenant_id, DELETED, ""
        return tenant_id, "S" if kind < 0.15 else "A", "bad" if kind > 0.95 else f"{uuid.uuid4().hex[:8]}.db"


def _body(tenant_id, database):
    name = 7 if database == "bad" else database
    return codec.encode(tenant_id, {"orm_config": {"django_orm": {"default": {"NAME": name}}}}, JSONSerializer())


class Fleet:
    """The processes, each behind a proxy of its own."""

    def __init__(self, project, redis, count, stack):
        self.project, self.redis, self._stack = project, redis, stack
        self.proxies = [stack.enter_context(closing(Proxy(redis.port))) for _ in range(count)]
        self.logs = []  # of every process that there ever was
        self.followers = [self._start(number) for number in range(count)]
        self.started_by_us = Counter()

    def _start(self, number):
        path = self.project.directory / f"report-{len(self.logs)}.json"
        environment = {
            "TESTS_REDIS_URL": f"redis://127.0.0.1:{self.proxies[number].port}/0",
            "TESTS_IDLE": str(IDLE),
            "TESTS_BOOT_TIMEOUT": "120",
            "TESTS_EAGER_MAX": "0" if number % 2 else "5000",
        }
        process = self._stack.enter_context(self.project.start("-m", "tests.follower", str(path), **environment))
        self.logs.append(process)
        return Follower(process, path)

    def restart(self, number):
        """kill -9, and another one in its place."""
        self.followers[number].signal(signal.SIGKILL)
        self.followers[number].process._popen.wait()
        self.followers[number] = self._start(number)
        self.started_by_us[number] += 1

    def heal(self):
        for proxy in self.proxies:
            proxy.delay, proxy.rate, proxy.segment = 0.0, 0, 65536
            proxy.go_on()
        for follower in self.followers:
            with suppress(ProcessLookupError):
                follower.signal(signal.SIGCONT)
        self.redis.resume()


class Disturber(threading.Thread):
    """One fault after the other, some of them at once."""

    def __init__(self, fleet, writer, ended, rng):
        super().__init__(daemon=True)
        self.fleet, self.writer, self.ended, self.rng = fleet, writer, ended, rng
        self.done, self.violations = Counter(), []

    def run(self):
        faults = [getattr(self, name) for name in dir(self) if name.startswith("fault_")]
        while not self.ended.wait(self.rng.uniform(0.1, 1.0)):
            fault = self.rng.choice(faults)
            self.done[fault.__name__.removeprefix("fault_")] += 1
            try:
                fault()
            except (OSError, StoreError, ConnectionError):
                continue  # one fault met another
            except AssertionError as error:
                self.violations.append(f"{fault.__name__}: {error}")

    def _some(self):
        return self.rng.sample(self.fleet.proxies, self.rng.randint(1, max(1, len(self.fleet.proxies) // 3)))

    @contextmanager
    def _for_a_while(self, longest):
        yield
        self.ended.wait(self.rng.uniform(0.1, longest))

    def fault_connections_killed(self):
        for kind in ("pubsub", "normal"):
            self.fleet.redis.client().execute_command("CLIENT", "KILL", "TYPE", kind)

    def fault_redis_stopped(self):
        with self._for_a_while(4):
            self.fleet.redis.pause()
        self.fleet.redis.resume()

    def fault_redis_killed(self):
        self.fleet.redis.kill()
        self.ended.wait(self.rng.uniform(0, 1))
        self.fleet.redis.start()

    def fault_redis_refuses_writes(self):
        """It is full for a while, or a replica of nobody."""
        client, full = self.fleet.redis.client(), self.rng.random() < 0.5
        with self._for_a_while(3):
            client.config_set("maxmemory", "1") if full else client.replicaof("127.0.0.1", 1)
        client.config_set("maxmemory", "0") if full else client.replicaof("NO", "ONE")

    def fault_redis_restored(self):
        """It comes back with an older disk; an operator looks at it and accepts what is gone."""
        disk, store = self.fleet.redis.directory / "appendonly.aof", self.fleet.project.store
        with self._for_a_while(2):
            shutil.copy(disk, disk.with_suffix(".old"))
        with self.writer.lock:
            self.writer.history.restores.append(time.time())
            self.fleet.redis.kill()
            shutil.copy(disk.with_suffix(".old"), disk)
            self.fleet.redis.start()
            head = _patiently(store.head)
            self.writer.history.roll_back(head.rev)
            _patiently(lambda: store.claim(ACCEPTED, f"{head.epoch}:{head.rev}", 600))

    def fault_process_forks(self):
        follower, history = self.rng.choice(self.fleet.followers), self.writer.history
        if "synchronised at" in follower.process.log:
            asked = {"revision": history.acknowledged, "at": time.time()}
            follower.path.with_suffix(".asked").write_text(json.dumps(asked))
            follower.signal(signal.SIGUSR2)

    def fault_log_trimmed(self):
        """Past a process that stands still meanwhile."""
        log, follower = f"{{tr:{self.fleet.project.service}}}:log", self.rng.choice(self.fleet.followers)
        with self._for_a_while(1):
            follower.signal(signal.SIGSTOP)
        self.fleet.redis.client().xtrim(log, maxlen=self.rng.choice([1, 5, 50]), approximate=False)
        follower.signal(signal.SIGCONT)

    def fault_scripts_flushed(self):
        self.fleet.redis.client().script_flush()

    def fault_links_reset(self):
        for proxy in self._some():
            proxy.reset()

    def fault_links_half_open(self):
        for proxy in self._some():
            proxy.silence()

    def fault_links_slow(self):
        chosen = self._some()
        with self._for_a_while(3):
            for proxy in chosen:
                name, value = self.rng.choice([("delay", 0.3), ("rate", 5000), ("segment", 1)])
                setattr(proxy, name, value)
        self.fleet.heal()

    def fault_links_dead(self):
        chosen = self.rng.randrange(len(self.fleet.proxies))
        proxy, follower = self.fleet.proxies[chosen], self.fleet.followers[chosen]
        getattr(proxy, self.rng.choice(["blackhole", "pause"]))()
        for _ in range(2):  # an answer that was on its way reaches a process late that stood still
            if self.ended.wait(3 * IDLE + 2.0) or "synchronised at" not in follower.process.log:
                break
            if follower.report()["state"] != "READY":
                break
        else:
            self.violations.append(f"pid {follower.pid} said READY though it was cut off")
        proxy.go_on()

    def fault_process_stopped(self):
        follower = self.rng.choice(self.fleet.followers)
        with self._for_a_while(3):
            follower.signal(signal.SIGSTOP)
        follower.signal(signal.SIGCONT)

    def fault_process_killed(self):
        self.fleet.restart(self.rng.randrange(len(self.fleet.followers)))


def _patiently(ask):
    while True:
        try:
            return ask()
        except StoreError:
            time.sleep(0.05)


def forked(fleet, history):
    """Rule 4: a child that says READY has what was committed before it was forked, unless that was discarded since."""
    for path in fleet.project.directory.glob("report-*.json.*"):
        if path.suffix.removeprefix(".").isdigit():
            said = json.loads(path.read_text())
            committed, began = said["asked"]["revision"], said["asked"]["at"]
            restored = any(began - 1 < at < said["at"] for at in history.restores)
            if said["state"] == "READY" and said["head"][1] < committed and not restored:
                yield f"the child {said['pid']} said READY at {said['head'][1]}, and {committed} was committed"


def checked(fleet, writer):
    """Every violation of the rules, after everything was healed."""
    store = fleet.project.store
    head = store.head()
    written = writer.history.written
    if head.rev != writer.history.acknowledged or sorted(written) != list(range(1, head.rev + 1)):
        yield f"the store is at {head.rev}, and {writer.history.acknowledged} was acknowledged last"
    for process in fleet.logs:
        yield from _order(process, writer.history)
    truth = _truth(written)
    deadline = time.monotonic() + HEALING
    for follower in fleet.followers:
        yield from _served(follower, head, truth, deadline)
    yield from _status(fleet, head, deadline)


def _order(process, history):
    """Rule 1: revisions are taken in their order, and none that was never committed."""
    seen = {}
    for line in process.log.splitlines():
        if any(said in line for said in _READS_ALL):
            seen.clear()
        if not (found := _TAKEN.search(line)):
            continue
        tenant_id, revision, state, pid = found[1], int(found[2]), found[3], found[4]
        change = history.written.get(revision)
        known = change is not None and change[:2] == (tenant_id, state)
        if not known and (revision, tenant_id, state) not in history.discarded:
            yield f"pid {pid} took {tenant_id} at {revision} ({state}), which was never committed"
        if revision < seen.get((pid, tenant_id), 0):
            yield f"pid {pid} took {tenant_id} back from {seen[pid, tenant_id]} to {revision}"
        seen[pid, tenant_id] = revision


def _truth(written):
    """Tenant -> the changes that it had, in order."""
    found = {}
    for revision in sorted(written):
        tenant_id, state, database = written[revision]
        found.setdefault(tenant_id, []).append((revision, state, database))
    return found


def _served(follower, head, truth, deadline):
    """Rule 2: what is served is what the store has, in the process that there was."""
    if follower.process._popen.poll() is not None:
        yield f"pid {follower.pid} ended with {follower.process._popen.returncode}"
        return
    follower.process.wait_for("synchronised at revision", timeout=60)  # it may just have been started
    deadline = max(deadline, time.monotonic() + PATIENCE)
    while True:
        report = follower.report()
        loaded = "TenantNotLoaded" not in report["tenants"].values()  # else the store was away for a moment
        if report["head"] == list(head) and report["state"] == "READY" and loaded:
            break
        if time.monotonic() > deadline:
            yield f"pid {follower.pid} is {report['state']} at {report['head']}, and the store is at {list(head)}"
            return
        time.sleep(0.2)
    for tenant_id, changes in truth.items():
        served, expected = report["tenants"].get(tenant_id), _expected(changes)
        if served not in expected:
            yield f"pid {follower.pid} serves {tenant_id} as {served}, expected {expected}"
    if extra := report["tenants"].keys() - truth.keys():
        yield f"pid {follower.pid} knows {sorted(extra)}, which never were"


def _expected(changes):
    """What a process may answer for a tenant with these changes; a refused record leaves an earlier good one."""
    revision, state, database = changes[-1]
    if state == DELETED:
        return [None]
    if state == "S":
        return ["TenantSuspended"]
    if database != "bad":
        return [[revision, database]]
    return ["TenantMisconfigured", *([rev, name] for rev, _, name in changes if name not in ("", "bad"))]


def _status(fleet, head, deadline):
    """Rule 3: the fleet's status shows these processes, at this revision."""
    pids = {follower.pid for follower in fleet.followers}
    deadline = max(deadline, time.monotonic() + PATIENCE)
    while True:
        said = [json.loads(lease.value) for lease in fleet.project.store.leases().values()]
        if pids <= {one["pid"] for one in said if one["revision"] == head.rev and one["state"] == "READY"}:
            return
        if time.monotonic() > deadline:
            yield f"the status shows {sorted((one['pid'], one['revision'], one['state']) for one in said)}"
            return
        time.sleep(0.2)


def main():
    options = _arguments()
    rng = random.Random(options.seed)
    print(f"{options.processes} processes, {options.minutes:g} minutes, seed {options.seed}", flush=True)
    with ExitStack() as stack:
        directory = stack.enter_context(short_directory())
        redis = RedisServer(directory, "--appendonly", "yes", "--appendfsync", "always")
        redis.start()
        stack.callback(redis.stop)
        logs = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        project, ended = Project(redis, logs), threading.Event()
        writer = Writer(project.store, ended, random.Random(rng.random()))
        writer.commit([(TENANTS[0], "A", "first.db")])
        fleet = Fleet(project, redis, options.processes, stack)
        for follower in fleet.followers:
            follower.process.wait_for("synchronised at revision", timeout=120)
        disturber = Disturber(fleet, writer, ended, random.Random(rng.random()))
        writer.start()
        disturber.start()
        time.sleep(options.minutes * 60)
        ended.set()
        disturber.join()
        fleet.heal()
        writer.join()
        children = len(list(logs.glob("report-*.json.[0-9]*")))
        violations = [*disturber.violations, *forked(fleet, writer.history), *checked(fleet, writer)]
    for violation in violations:
        print(violation)
    print(f"faults: {dict(sorted(disturber.done.items()))}")
    print(f"children: {children}, ", end="")
    print(f"revisions: {writer.history.acknowledged}, processes: {len(fleet.logs)}, violations: {len(violations)}")
    return 1 if violations else 0


def _arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--processes", type=int, default=20)
    parser.add_argument("--seed", type=int, default=None, help="Repeats the choices, not the timing.")
    options = parser.parse_args()
    if options.seed is None:
        options.seed = random.SystemRandom().randrange(1_000_000)
    return options


if __name__ == "__main__":
    sys.exit(main())
