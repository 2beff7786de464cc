"""``tenant_command`` and ``TenantCommand`` in one process, in its thread and in several."""

import io
import json
import re
import shlex
import sys
import threading
from contextlib import suppress

import pytest
from django.core.management import CommandError, call_command
from django.core.management.base import BaseCommand
from django.db import connection, connections, transaction

from tenant_router.context_decorators import tenant_context_bind
from tenant_router.exceptions import TenantDeleted, TenantNotFound
from tenant_router.fleet import SelectionError, for_each_tenant
from tenant_router.management import base
from tests.app.models import Note
from tests.fixtures_orm import SQLITE
from tests.tenants import eventually

HERE = pytest.mark.parametrize("executor", ["sequential", "threads"])
RUN = "from tests.app.models import Note; from django.db import connection; tenant = connection.alias[:1]; "


def run(*arguments, name="tenant_command", **options):
    """The lines that are printed, those of errors, and the error."""
    out, err, error = io.StringIO(), io.StringIO(), None
    try:
        call_command(name, *arguments, stdout=out, stderr=err, **options)
    except CommandError as raised:
        error = raised
    return out.getvalue().splitlines(), err.getvalue().splitlines(), error


def code(text):
    """A command that runs a piece of Python."""
    return ["--", "shell", "-v0", "-c", RUN + text]


def of(tenant_id, lines):
    return [line.removeprefix(f"{tenant_id} | ") for line in lines if line.startswith(f"{tenant_id} | ")]


# --- what is run, and what is shown of it ---


@HERE
def test_a_command_runs_as_it_is_for_each_tenant(quick_two, executor):
    out, err, error = run(":all:", "--executor", executor, "--", "showmigrations", "app", "--plan")
    assert error is None
    for tenant_id in ("a.test", "b.test"):
        assert of(tenant_id, out) == ["[X]  app.0001_initial"]
    assert len(out) == 2
    assert sorted(re.sub(r"[\d.]+ s", "N s", line) for line in err) == [
        "2 tenants: 2 ok in N s",
        "a.test: ok (N s)",
        "b.test: ok (N s)",
    ]


def test_a_command_line_may_be_one_string(quick_two):
    out, _, _ = run("a.test", "shell -v0 -c \"print('x y')\"")
    assert out == ["a.test | x y"]
    assert run("a.test", "--", "shell -v0 -c 'print(1)'")[0] == ["a.test | 1"]


@HERE
def test_what_is_printed_is_whole_lines_of_its_tenant(quick_two, executor):
    text = (
        "import sys, threading; "
        "[(print(tenant, end='', flush=True), sys.stdout.write('-'), print(tenant), sys.stderr.write(tenant + '\\n'))"
        " for _ in range(40)]; sys.stdout.write('last')"
    )
    out, err, error = run(":all:", "--executor", executor, "-v0", *code(text))
    assert error is None
    for tenant_id in ("a.test", "b.test"):
        assert of(tenant_id, out) == [f"{tenant_id[0]}-{tenant_id[0]}"] * 40 + ["last"]
        assert of(tenant_id, err) == [tenant_id[0]] * 40
    assert len(out) + len(err) == 2 * 81


def test_threads_are_bound_each_to_its_tenant(quick_two):
    _, _, error = run(
        ":all:", "--executor", "threads", *code("[Note.objects.create(text=tenant + str(n)) for n in range(20)]")
    )
    assert error is None
    for tenant_id in ("a.test", "b.test"):
        with tenant_context_bind(tenant_id):
            assert {text[0] for text in Note.objects.values_list("text", flat=True)} == {tenant_id[0]}


def test_threads_migrate(tenants):
    names = [f"t{number}.test" for number in range(4)]
    for name in names:
        tenants.put(name)
    _, err, error = run(":all:", "--executor", "threads", "--", "migrate", "-v0")
    assert error is None, err
    for name in names:
        with tenant_context_bind(name):
            assert Note.objects.count() == 0


def test_output_is_collected_into_files(quick_two, tmp_path):
    text = "import sys; print(tenant); tenant == 'b' and sys.stderr.write('\\udcffb')"
    out, _, error = run(":all:", "--output-dir", str(tmp_path / "new" / "out"), *code(text))
    assert (out, error) == ([], None)
    found = {str(path.relative_to(tmp_path)): path.read_bytes() for path in tmp_path.rglob("*.txt")}
    assert found == {
        "new/out/a.test/stdout.txt": b"a\n",
        "new/out/b.test/stdout.txt": b"b\n",
        "new/out/b.test/stderr.txt": b"\xffb\n",
    }


def test_files_of_an_earlier_run_are_taken_away(quick_two, tmp_path):
    run("a.test", "--output-dir", str(tmp_path), *code("print(1)"))
    run("a.test", "--output-dir", str(tmp_path), *code("import sys; sys.stderr.write('2')"))
    assert {path.name: path.read_text() for path in (tmp_path / "a.test").iterdir()} == {"stderr.txt": "2\n"}


def test_a_command_that_asks_finds_nothing_to_read(quick_two):
    _, err, error = run("a.test", *code("input('sure? ')"))
    assert "a.test: FAILED: EOFError: EOF when reading a line" in err[-2]
    assert error is not None


# --- what fails ---


@HERE
def test_failures_are_named_and_run_again_by_one_line(quick_two, executor, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["manage.py"])
    text = code("1 / (tenant == 'a'); Note.objects.create(text='x')")
    _, err, error = run(":all:", "--executor", executor, "--exclude", "nobody-*", *text)
    assert error.returncode == 1
    assert any(re.fullmatch(r"b.test: FAILED: ZeroDivisionError: division by zero \(.* s\)", line) for line in err)
    said, _, line = str(error).partition("; to run it again for exactly them: ")
    assert said == "not done for 1 of 2 (1 failed): b.test"
    words = shlex.split(line)
    assert words[:4] == ["python", "manage.py", "tenant_command", "b.test"]
    _, again, error = run(*words[3:])
    assert sum("FAILED" in line for line in again) == 1
    assert "b.test" in str(error)
    with tenant_context_bind("a.test"):
        assert Note.objects.count() == 1


def test_many_failures_are_listed_in_a_file(tenants, monkeypatch, tmp_path):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    for number in range(25):
        tenants.put(f"t{number:02}.test")
    _, _, error = run(":all:", "--", "shell", "-v0", "-c", "1/0")
    assert re.match(r"not done for 25 of 25 \(25 failed\): t00.test, .*, t19.test and 5 more; ", str(error))
    words = shlex.split(str(error).partition("them: ")[2])
    selector = next(word for word in words if word.startswith("@"))
    _, err, _ = run(selector, "--", "shell", "-v0", "-c", "pass")
    assert err[-1].startswith("25 tenants: 25 ok")


def test_fail_fast_begins_nothing_new(quick_two):
    _, _, error = run(":all:", "--fail-fast", *code("1/0"))
    assert str(error).startswith("not done for 2 of 2 (1 failed, 1 not run): a.test, b.test")
    _, _, error = run(":all:", "--keep-going", *code("1/0"))
    assert str(error).startswith("not done for 2 of 2 (2 failed): a.test, b.test")


def test_exit_codes_and_tracebacks(quick_two, tmp_path):
    report = tmp_path / "report.json"
    _, err, _ = run(":all:", "--traceback", "--report", str(report), *code("exit(3) if tenant == 'a' else 1/0"))
    assert [one["exit_code"] for one in json.loads(report.read_text())["tenants"]] == [3, 1]
    assert of("b.test", err)[0] == "Traceback (most recent call last):"
    assert "Traceback" not in " ".join(run(":all:", *code("1/0"))[1])


def test_the_report(quick_two, tmp_path):
    report = tmp_path / "report.json"
    run(":all:", "--executor", "threads", "--jobs", "2", "--report", str(report), *code("1 / (tenant == 'a')"))
    found = json.loads(report.read_text())
    assert found.pop("seconds") > 0
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", found.pop("started"))
    assert all(one.pop("seconds") >= 0 for one in found["tenants"])
    assert found == {
        "command": code("1 / (tenant == 'a')")[1:],
        "executor": "threads",
        "jobs": 2,
        "interrupted": False,
        "counts": {"failed": 1, "ok": 1},
        "tenants": [
            {"id": "a.test", "outcome": "ok", "exit_code": 0, "error": ""},
            {"id": "b.test", "outcome": "failed", "exit_code": 1, "error": "ZeroDivisionError: division by zero"},
        ],
    }


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--", "chekc"], r"^Unknown command: 'chekc'. Did you mean check\? \(nothing was run"),
        (["--", "showmigrations", "--no-such"], "^showmigrations: unrecognized arguments: --no-such .nothing was run"),
        (["--", "showmigrations", "--tenant-id", "b.test"], "give it no --tenant-id"),
        (["--", "runserver"], "runserver serves all tenants"),
        (["--", "test"], "runs as the test tenant"),
        (["--", "migrate_all"], "takes selectors itself"),
        (["--", "load_tenant_config"], "loads every tenant of its file: it is not run for tenants one by one"),
        (["--", "tenant", "list"], "names its tenant itself"),
        (["--", "tenant_command", "a.test", "check"], "names its tenants itself"),
        (["--", "tenant_status"], "is about all tenants"),
        (["--"], "^name the command"),
        (["--", ""], "^name the command"),
        (["--", "shell -c 'x"], "No closing quotation"),
        (["--timeout", "5", "--", "check"], "--timeout needs --executor processes or celery"),
        (["--timeout", "0", "--executor", "processes", "--", "check"], "'0' is no number of seconds above 0"),
        (["--timeout", "nan", "--executor", "processes", "--", "check"], "'nan' is no number of seconds"),
        (["--jobs", "0", "--", "check"], "'0' is no number of at least 1"),
        (["--jobs", "²", "--", "check"], "is no number of at least 1"),
        (["--executor", "celery", "--", "check"], "CELERY_COMMANDS'. does not list it"),
        (["--report", "/no/such/folder/x", "--", "check"], "cannot be written: No such file or directory; nothing"),
        (["--report", "/", "--", "check"], "cannot be written: Is a directory; nothing"),
        (
            ["--output-dir", "/proc/none", "--", "check"],
            "'/proc/none' cannot be made: No such file or directory; nothing",
        ),
        (["--output-dir", "/dev/null/x", "--", "check"], "cannot be made: Not a directory; nothing was run"),
        (["--keep-going", "--fail-fast", "--", "check"], "not allowed with"),
    ],
)
def test_what_is_refused_before_any_tenant_runs(quick_two, arguments, said):
    out, err, error = run("a.test", *arguments)
    assert error is not None
    assert re.search(said, str(error)), error
    assert "\n" not in str(error)
    assert (out, err) == ([], [])


def test_selectors_are_refused_before_anything_runs(quick_two):
    for selector, said in (
        ("b.tset", "did you mean b.test"),
        ("a.test", "no tenant is selected: all that were are excluded"),
        (":sate=x", "no selector"),
    ):
        with pytest.raises(SelectionError, match=rf"{said}.*; nothing was run"):
            run("a.test", selector, "--exclude", "a.test", *code("1/0"))


@pytest.mark.parametrize("options", [[], ["--noinput"]])
def test_without_selectors_and_terminal_it_is_refused(quick_two, options):
    _, _, error = run(*options, "check")
    assert error.returncode == 2
    assert str(error).startswith("name the tenants: an id, a glob")


def test_help_of_the_other_command_is_shown_once(quick_two, capsys):
    with pytest.raises(SystemExit) as left:
        call_command("tenant_command", ":all:", "--", "dumpdata", "--help")
    assert left.value.code == 0
    assert capsys.readouterr().out.count("usage:") == 1


def test_patterns_mean_active_tenants(quick_two):
    quick_two.put("b.test", quick_two.record("b.test"), state="S")
    for selectors, expected in (
        (["*"], {"a.test"}), ([":all:"], {"a.test"}), ([":state=suspended"], {"b.test"}), (["b.test"], {"b.test"}),
    ):  # fmt: skip
        out, _, error = run(*selectors, *code("print(1)"))
        assert (error, {line.partition(" ")[0] for line in out}) == (None, expected)
    assert "note: '*' leaves out 1 that is suspended" in run("*", *code("pass"))[1]


def test_labels(quick_two):
    quick_two.put("b.test", quick_two.record("b.test", labels=["pro"]))
    assert run(":label=pro", *code("print(1)"))[0] == ["b.test | 1"]


def test_a_disk_that_is_full_stops_the_run_and_says_so(quick_two):
    full = open("/dev/full", "w")  # noqa: SIM115 - which cannot be closed without an error
    with pytest.raises(CommandError) as error:
        call_command("tenant_command", ":all:", *code("print(1)"), stdout=full, stderr=io.StringIO())
    said = "what is printed cannot be written: No space left on device; not done for 1 of 2 (1 not run): b.test; to run"
    assert str(error.value).startswith(said)
    with suppress(OSError):
        full.close()


def test_a_terminal_with_few_letters_stops_nothing(quick_two):
    few = io.TextIOWrapper(io.BytesIO(), "ascii")
    call_command("tenant_command", "a.test", *code("print('\u00fc')"), stdout=few, stderr=io.StringIO())
    assert few.buffer.getvalue() == b"a.test | \\xfc\n"


def test_a_report_on_a_full_disk(quick_two):
    _, err, error = run("a.test", "--report", "/dev/full", *code("print(1)"))
    assert str(error) == "the report '/dev/full' could not be written: No space left on device"
    assert any(line.startswith("a.test: ok") for line in err)


# --- connections ---


def test_jobs_are_as_many_as_connections_allow(project):
    made = project({"default": {**SQLITE, "CONN_MAX_AGE": None}}, MAX_OPEN_CONNECTIONS=4)
    for number in range(400):
        made.put(f"t{number}.test")
    made.runtime.refresh()
    at_once, changed = [0, 0], threading.Condition()

    def work(tenant):
        with changed:
            at_once[0] += 1
            at_once[1] = max(at_once)
            changed.notify_all()
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1")
            changed.wait_for(lambda: at_once[0] > 4, 0.005)
            at_once[0] -= 1
        return tenant.id

    found = for_each_tenant(":all:", work, executor="threads", jobs=8)
    assert [one.value for one in found] == sorted(f"t{number}.test" for number in range(400))
    assert at_once[1] <= 4
    assert made.runtime.orms["django_orm"].connections.budget.open_count() == 0
    assert run("t1*", "--executor", "threads", "--jobs", "8", "check")[1][0] == (
        "note: 4 at once and not 8: MAX_OPEN_CONNECTIONS is less"
    )


@pytest.mark.parametrize("templates", [1, 2])
def test_each_tenant_leaves_no_connection_open(project, templates):
    aliases = ["default", "other"][:templates]
    made = project({alias: {**SQLITE, "CONN_MAX_AGE": None} for alias in aliases}, MAX_OPEN_CONNECTIONS=5)
    for name in "abc":
        databases = {alias: {"NAME": str(made.directory / f"{name}-{alias}.db")} for alias in aliases}
        made.put(f"{name}.test", {"orm_config": {"django_orm": databases}})
    made.runtime.refresh()
    budget = made.runtime.orms["django_orm"].connections.budget

    def work(tenant):
        before = budget.open_count()
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        return before, budget.open_count()

    assert [one.value for one in for_each_tenant(":all:", work)] == [(0, 1)] * 3
    assert budget.open_count() == 0


def test_threads_on_postgresql_leave_no_session(on_postgres):
    made = on_postgres(max_open=2, CONN_MAX_AGE=None)
    names = ["one", "two", "three"]
    made.create(*names)
    for name in names:
        made.put(f"{name}.test", name)
    found = for_each_tenant(
        ":all:", lambda tenant: [*Note.objects.values_list("text", flat=True)], executor="threads", jobs=8
    )
    assert {one.tenant_id: one.value for one in found} == {f"{name}.test": [name] for name in names}
    eventually(lambda: made.sessions() == 0)  # a server notices a little later


def test_threads_close_reserved_connections_too(project, tmp_path):
    databases = {"default": {**SQLITE}, "central": {**SQLITE, "NAME": str(tmp_path / "central.db")}}
    made = project(databases, reserved={"central"})
    for name in "abc":
        made.put(f"{name}.test")
    made.runtime.refresh()

    def work(tenant):
        connections["central"].ensure_connection()
        return connections["central"]

    found = for_each_tenant(":all:", work, executor="threads", jobs=2)
    assert [one.value.connection for one in found] == [None] * 3


def test_an_outer_block_keeps_its_connection(quick_two):
    with tenant_context_bind("a.test"):
        kept = connection.connection or (connection.ensure_connection(), connection.connection)[1]
        rows = Note.objects.iterator()
        found = for_each_tenant("a.test", lambda tenant: Note.objects.count())
        assert (list(rows), found[0].value, connection.connection) == ([], 0, kept)


# --- in Python ---


def test_results_and_errors_of_each_tenant(quick_two):
    def work(tenant):
        if tenant.id == "a.test":
            raise KeyError("x")
        return tenant.id

    a, b = for_each_tenant(["b.test", "a.*"], work)[::-1]
    assert (a.ok, type(a.error), a.value) == (False, KeyError, None)
    assert (b.ok, b.error, b.value) == (True, None, "b.test")


def test_an_executor_that_there_is_not(quick_two):
    with pytest.raises(ValueError, match="'processes' is neither 'sequential' nor 'threads'"):
        for_each_tenant(":all:", print, executor="processes")
    with pytest.raises(TenantNotFound):
        for_each_tenant("nobody.at.all", print)


def test_an_interruption_is_the_callers(quick_two):
    def work(tenant):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        for_each_tenant(":all:", work)


@HERE
def test_a_tenant_that_vanishes_meanwhile_is_one_line(quick_two, executor):
    """The others go on."""
    gone = threading.Event()

    def work(tenant):
        if tenant.id == "a.test":
            revision = quick_two.delete("b.test")
            quick_two.arrived("b.test", revision)
            gone.set()

    quick_two.put("c.test", quick_two.record("c.test"))
    quick_two.runtime.refresh()
    found = for_each_tenant(["a.test", "b.test", "c.test"], work, executor=executor, jobs=1)
    assert [one.status for one in found] == ["ok", "failed", "ok"]
    assert isinstance(found[1].error, TenantDeleted)
    assert found[1].line == "TenantDeleted: tenant 'b.test' was deleted"


def test_a_transaction_that_is_left_open_concerns_its_tenant_alone(quick_two):
    def work(tenant):
        if tenant.id == "a.test":
            transaction.atomic().__enter__()
        return Note.objects.count()

    a, b = for_each_tenant(["a.test", "b.test"], work)
    assert (a.ok, b.ok) == (False, True)


# --- TenantCommand ---


@HERE
def test_a_tenant_command(quick_two, executor):
    run(":all:", "--add", "x", name="count_notes")
    out, _, error = run(":all:", "--executor", executor, name="count_notes")
    assert error is None
    for tenant_id in ("a.test", "b.test"):
        assert of(tenant_id, out) == ["1 notes", f"x of {tenant_id}", f"counted at {tenant_id}"]


def test_a_tenant_command_names_how_to_run_the_rest(quick_two, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["manage.py"])
    run("b.test", "--add", "x", name="count_notes")
    _, _, error = run("a.test", "b.test", "--over", "0", "--jobs", "2", name="count_notes")
    assert str(error).endswith(": python manage.py count_notes b.test --over 0 --jobs 2")


def test_a_tenant_command_is_one_object(quick_two, monkeypatch):
    """What it adds up is there for all of its tenants, and its streams are its own again."""

    class Command(base.TenantCommand):
        total = 0

        def handle_tenant(self, tenant, **options):
            self.total += 1

    command = Command()
    call_command(command, ":all:", "-v0", stdout=(out := io.StringIO()))
    assert command.total == 2
    assert command.stdout._out is out


def test_a_tenant_command_where_a_tenant_is_bound(quick_two, capsys):
    with tenant_context_bind("b.test"):
        assert run(name="count_notes")[0] == ["0 notes", "counted at b.test"]
        assert "b.test is bound here" in str(run("a.test", name="count_notes")[2])


def test_a_tenant_command_by_other_processes_wants_words(quick_two):
    _, _, error = run(":all:", "--executor", "processes", name="count_notes", over=3)
    assert "write the options over as words" in str(error)


def test_a_tenant_command_that_forgets_its_base(quick_two):
    class Command(base.TenantCommand):
        def add_arguments(self, parser):
            pass

    with pytest.raises(CommandError, match=r"must call super\(\).add_arguments"):
        call_command(Command(), "a.test")


def test_a_command_with_a_tenant_id_of_its_own_runs_here_alone(quick_two, monkeypatch):
    class Command(BaseCommand):
        def add_arguments(self, parser):
            parser.add_argument("--tenant-id")

        def handle(self, *args, tenant_id, **options):
            self.stdout.write(f"{tenant_id} at {connection.alias}")

    monkeypatch.setattr("tenant_router.management.command_line.get_commands", lambda: {"own": Command()})
    monkeypatch.setattr(
        "django.core.management.get_commands", lambda: {"tenant_command": "tenant_router", "own": Command()}
    )
    assert run("a.test", "--", "own", "--tenant-id", "x")[0] == ["a.test | x at a.test_default"]
    assert "choose another executor" in str(run("a.test", "--executor", "processes", "--", "own")[2])
