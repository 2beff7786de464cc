"""Deleted tenants: they cost no bodies, and they have an end."""

import os
import subprocess
import time
import uuid

import pytest
from django.core.management import CommandError, call_command

from tenant_router.config_store.base import DELETED, READS, Op, packed_state
from tenant_router.exceptions import Denied, TenantDeleted, TenantNotFound
from tenant_router.managers import tenant_context_manager
from tests.faults.readers import Reader, Writers
from tests.processes import MANAGE, ROOT
from tests.tenants import eventually


@pytest.fixture
def many_deleted():
    """Two tenants, and more tombstones than bodies may be held."""
    writers = Writers()
    writers.commit(*(Op(f"gone{number}", DELETED) for number in range(100)))
    writers.put("a", 1)
    writers.put("b", 1)
    return writers


def test_tombstones_do_not_count_towards_eager_max(many_deleted):
    reader = Reader(many_deleted.store, eager_max=50)
    reader.step()
    assert reader.pipeline._held.keys() == {"a", "b"}
    many_deleted.put("c", 1)
    reader.step()
    assert reader.registry.prepared.keys() == {"c"}, "it was read at once"
    assert reader.pipeline.live == 3


def test_live_tenants_are_counted_whatever_becomes_of_them(many_deleted):
    reader = Reader(many_deleted.store, eager_max=50)
    reader.step()
    many_deleted.commit(*(Op(f"t{number}", "S", b"x") for number in range(60)))
    many_deleted.commit(Op("t0", DELETED), Op("t0", DELETED), Op("gone1", "S", b"x"))
    reader.step(3)
    assert reader.pipeline.live == len(reader.registry.get_known_ids()) == 62
    assert not reader.pipeline.wants("stranger")


def test_a_purged_tenant_is_unknown_after_the_next_look(many_deleted):
    reader = Reader(many_deleted.store)
    reader.step()
    time.sleep(0.01)
    assert many_deleted.store.purge(0.001) == 100
    reader.reflector._resync_at = 0.0
    reader.step(2)
    assert reader.registry.index.keys() == {"a", "b"}
    assert reader.reflector.failures == 0, "they were deleted, so nothing has vanished"


def test_purging_by_command(project, runtime_on, capsys):
    project.put("gone.test", project.record("gone.db"))
    project.delete("gone.test")
    made = runtime_on(project)
    made.serve("web")
    with pytest.raises(TenantDeleted):
        tenant_context_manager.get_by_id("gone.test")
    call_command("tenant_store", "purge", "--older-than", "30d", "--yes")
    assert "purged 0 tombstones" in capsys.readouterr().out
    assert packed_state(project.store.index()["gone.test"]) == DELETED
    time.sleep(1.1)
    call_command("tenant_store", "purge", "--older-than", "1s", "--yes")
    assert "purged 1 tombstones" in capsys.readouterr().out
    made.reflector._resync_at = 0.0
    project.put("a.test", project.record("other.db"))  # which wakes the reader
    eventually(lambda: "gone.test" not in tenant_context_manager.index)
    with pytest.raises(TenantNotFound):
        tenant_context_manager.get_by_id("gone.test")


def test_who_cannot_be_asked_has_not_agreed(project):
    project.put("gone.test", project.record("gone.db"))
    project.delete("gone.test")
    time.sleep(1.1)
    arguments = [*MANAGE, "tenant_store", "purge", "--older-than", "1s"]
    environment = {**os.environ, **project.environment}
    done = subprocess.run(arguments, cwd=ROOT, env=environment, input=b"yes", capture_output=True, timeout=120)
    assert (done.returncode, b"--yes" in done.stderr) == (2, True)
    assert "gone.test" in project.store.index()


@pytest.mark.parametrize("given", ["30", "d", "-1d", "1.5h", "1w"])
def test_a_time_is_written_with_its_unit(project, runtime_on, given):
    runtime_on(project)
    with pytest.raises(CommandError, match="30d"):
        call_command("tenant_store", "purge", f"--older-than={given}", "--yes")


def test_a_minimal_reader_is_set_by_command(project, runtime_on, capsys):
    runtime_on(project)
    call_command("tenant_store", "min-reader", str(READS))
    assert f"format {READS}" in capsys.readouterr().out
    with pytest.raises(CommandError, match="can be asked for by newer ones"):
        call_command("tenant_store", "min-reader", str(READS + 1))
    project.store.insist(READS + 1)
    with pytest.raises(Denied):
        project.store.head()
    assert project.store.commit([Op(uuid.uuid4().hex, DELETED)], request_id="any") == 2
