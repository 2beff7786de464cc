"""One clear line each: what operators' commands cannot do, and what they are interrupted in."""

import io
import json
import pickle

import pytest
from django.core.management import CommandError, call_command

from tenant_router.config_store.base import ACTIVE, Op
from tenant_router.config_store.serializers.pickle import PickleSerializer
from tenant_router.fleet import SelectionError
from tenant_router.lifecycle import StateRefused
from tenant_router.management.commands import load_tenant_config
from tests.fixtures_orm import SQLITE


@pytest.fixture
def file(tenants, tmp_path):
    """A configuration file with one tenant."""
    made = tmp_path / "one.json"
    section = {"a.test": {tenants.runtime.conf.service: tenants.record("a.test")}}
    made.write_text(json.dumps({"mapping_metadata": {}, "tenant_config": section}))
    return str(made)


def test_waiting_needs_a_store_with_leases_and_says_so_before_it_writes(tenants, file, monkeypatch):
    monkeypatch.setattr(type(tenants.runtime.store), "keeps_leases", False)
    at = tenants.runtime.store.head().rev
    for arguments in (["load_tenant_config", "-f", file, "--wait"], ["tenant_status", "--wait"], ["tenant_status"]):
        with pytest.raises(CommandError, match=r"^this config store keeps no leases, so nobody knows .*: do not wait$"):
            call_command(*arguments)
    assert tenants.runtime.store.head().rev == at


def test_a_load_that_waits_for_nobody_says_so(tenants, file, monkeypatch):
    monkeypatch.setattr(tenants.runtime.store, "leases", dict)
    out = io.StringIO()
    call_command("load_tenant_config", "-f", file, "--wait", "5", stdout=out)
    assert out.getvalue().splitlines()[-1] == "revision 3: no process follows the store"


def test_a_manager_that_cannot_be_asked_is_not_one_that_does_not_answer(project, monkeypatch):
    tenants = project({"default": {**SQLITE}})
    tenants.put("a.test")
    tenants.arrived("a.test")

    def check_health(alias):
        raise NotImplementedError("the manager of 'django_orm' cannot ask its databases for a sign of life")

    monkeypatch.setattr(tenants.runtime.orms["django_orm"], "check_health", check_health)
    out = io.StringIO()
    call_command("tenant", "check", "a.test", stdout=out)
    assert out.getvalue() == (
        "django_orm\tdefault\tnot checked: the manager of 'django_orm' cannot ask its databases for a sign of life\n"
    )


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("_read", "interrupted: nothing was written"),
        ("_wait", "interrupted: revision 3 is written; run the command again for what was to follow"),
    ],
)
def test_an_interruption_says_what_is_true(file, monkeypatch, where, said):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(load_tenant_config.Command, where, interrupted)
    with pytest.raises(CommandError) as error:
        call_command("load_tenant_config", "-f", file, "--wait")
    assert (str(error.value), error.value.returncode) == (said, 130)


def test_an_interruption_while_the_store_is_written(tenants, file, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(tenants.runtime.store, "commit", interrupted)
    with pytest.raises(CommandError, match="interrupted: the store was being written; run the command again"):
        call_command("load_tenant_config", "-f", file)


BAD_DATABASES = [
    {"NAME": "a\0b"}, {"NAME": "\ud800"}, {"NAME": "file:a%00b"}, {"NAME": "\x1b[2J"}, {"NAME": "x" * 200_000},
    {"NAME": "a", "CONN_MAX_AGE": 10**400}, {"NAME": "a", "\x1b[2J\ud800": 1}, [], [1], "x", None, 5,
]  # fmt: skip
BAD_RECORDS = [
    *({"orm_config": {"django_orm": {"default": each}}} for each in BAD_DATABASES),
    *({"orm_config": each} for each in ([1], "x", None, {"django_orm": [1]}, {"django_orm": "x"})),
]


def test_a_bad_record_keeps_no_command_from_its_work(tenants, file, capsys):
    for number, record in enumerate(BAD_RECORDS):
        tenants.put(f"bad{number}.test", record)

    call_command("load_tenant_config", file=str(file))  # beside them
    call_command("tenant", "list")
    with pytest.raises(CommandError, match="refused as listed"):
        call_command("tenant_store", "check")
    told, errors = capsys.readouterr()

    assert all(told.count(f"bad{number}.test ") == 1 for number in range(len(BAD_RECORDS)))
    assert all(f"bad{number}.test\t" in told for number in range(len(BAD_RECORDS)))
    (told + errors).encode()
    assert "\x1b" not in told + errors
    assert len(told) < 20_000


def test_what_a_pickled_record_holds_besides_json_is_shown_by_its_size(tenants):
    body = b"T1|pickle|" + b"0" * 32 + b"|" + pickle.dumps({"v": 1, "id": "a.test", "x-a": [b"abc"]}, protocol=4)
    tenants.commit(Op("a.test", ACTIVE, body))
    tenants.runtime.serializer = PickleSerializer()
    out = io.StringIO()
    call_command("tenant", "show", "a.test", stdout=out)
    assert json.loads(out.getvalue())["x-a"] == ["<3 bytes>"]


@pytest.mark.parametrize("command", [["tenant", "show"], ["tenant", "delete", "--yes"], ["tenant_status", "--tenant"]])
def test_a_name_that_is_no_text_is_no_tenant_id(command):
    with pytest.raises(CommandError, match=r"'\\udcff' is no tenant id: lower-case letters"):
        call_command(*command, "\udcff")


# --- selectors ---


@pytest.fixture
def several(tenants):
    """Four tenants, one suspended."""
    for name, state in (("acme-1.test", "A"), ("acme-2.test", "A"), ("acme-3.test", "S"), ("b.test", "A")):
        tenants.put(name, state=state)
    return tenants


def told(*arguments):
    """The lines that a command prints, and its notes."""
    out, err = io.StringIO(), io.StringIO()
    call_command(*arguments, stdout=out, stderr=err)
    return out.getvalue().splitlines(), err.getvalue().splitlines()


def states(tenants):
    return {name: stored.state for name, stored in tenants.runtime.store.get_many(NAMES).items()}


NAMES = ["acme-1.test", "acme-2.test", "acme-3.test", "b.test"]


def test_several_change_their_state_in_one_commit(several):
    lines, notes = told("tenant", "suspend", "acme-*", "--exclude", "acme-2.test")
    assert (lines, notes) == (
        ["acme-1.test is suspended at revision 6"],
        ["note: 'acme-*' leaves out 1 that is suspended"],
    )
    assert told("tenant", "resume", ":all:")[0] == [
        "acme-1.test is active at revision 7",
        "acme-3.test is active at revision 8",
    ]
    assert told("tenant", "drain", "b.test", "acme-1.test")[0] == [
        "b.test is draining at revision 9",
        "acme-1.test is draining at revision 10",
    ]
    assert told("tenant", "drain", "b.test")[0] == ["b.test is draining already, nothing changed"]


def test_several_of_whom_one_cannot_stay_as_they_are(several):
    several.put("new.test", state="P")
    before = states(several)
    with pytest.raises(StateRefused, match=r"'new.test' is provisioning"):
        call_command("tenant", "suspend", "b.test", "new.test")
    with pytest.raises(SelectionError, match=r"no tenant 'c.test' .*is known; nothing was changed"):
        call_command("tenant", "suspend", "b.test", "c.test")
    assert states(several) == before


def test_several_are_deleted_after_one_question(several, monkeypatch):
    asked = []

    def confirm(said, *, answer, **options):
        asked.append((said, answer))

    monkeypatch.setattr("tenant_router.management.commands.tenant.confirm", confirm)
    lines, _ = told("tenant", "delete", "acme-*", "--exclude", "acme-1.test")
    assert lines == ["deleted acme-2.test, revision 6", "deleted acme-3.test, revision 7"]
    assert asked == [("every process stops serving acme-2.test, acme-3.test", "2 tenants")]
    assert set(states(several)) == {"acme-1.test", "b.test"}


def test_several_are_listed_and_checked(several):
    assert [line.split()[0] for line in told("tenant", "list", "acme-*", "--exclude", "acme-1.test")[0]] == [
        "TENANT",
        "acme-2.test",
        "acme-3.test",
    ]
    assert [line.split()[0] for line in told("tenant", "list", "--exclude", "acme*")[0]] == ["TENANT", "b.test"]
    several.runtime.refresh()
    assert told("tenant", "check", "acme-1.test", "b.test")[0] == [
        "acme-1.test\tdjango_orm\tdefault\tok",
        "b.test\tdjango_orm\tdefault\tok",
    ]
    several.put("c.test", several.record("no/such/folder/x"))
    several.runtime.refresh()
    with pytest.raises(CommandError, match=r"1 of 2 databases of 'b.test', 'c.test' do not answer"):
        told("tenant", "check", "b.test", "c.test")


@pytest.mark.parametrize("command", ["suspend", "check", "delete"])
def test_without_a_selector_and_a_terminal_nothing_is_done(several, command):
    before = states(several)
    with pytest.raises(CommandError, match=r"^name the tenants: .*; nothing was changed") as error:
        call_command("tenant", command)
    assert (error.value.returncode, states(several)) == (2, before)


def test_some_are_migrated(several):
    lines, _ = told("migrate_all", "acme-*", "--exclude", "acme-1.test")
    assert lines == ["acme-2.test_default (django_orm): ok", "acme-3.test_default (django_orm): ok"]
    lines, _ = told("migrate_all", "--exclude", "acme-*", "--tenant-id", "b.test")
    assert lines == ["b.test_default (django_orm): ok"]
    with pytest.raises(SelectionError, match=r"no tenant is selected .*; nothing was migrated"):
        call_command("migrate_all", "c*")
