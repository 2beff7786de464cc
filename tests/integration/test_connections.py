"""``django.db.connections``: template aliases, tenants' aliases, reserved aliases, and no tenant at all."""

import copy
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import DEFAULT_DB_ALIAS, OperationalError, connection, connections, transaction
from django.db.utils import ConnectionDoesNotExist, ConnectionHandler

from tenant_router.config_store.base import Op
from tenant_router.context import enter, leave
from tenant_router.context_decorators import tenant_context_bind
from tenant_router.exceptions import (
    ConfigurationError,
    RecordInvalid,
    TenantContextMissing,
    TenantMismatch,
    TenantSuspended,
)
from tenant_router.managers import tenant_context_manager
from tenant_router.orm_backends.budget import Budget
from tenant_router.orm_backends.django_orm.connections import TenantConnectionHandler
from tenant_router.tenant_context import DeniedContext
from tests.app.models import Note
from tests.fixtures_orm import SQLITE, create_tables, database_of
from tests.tenants import eventually

# --- inside a tenant ---


@pytest.mark.parametrize("tenant_id", ["t1", "t10", "a.test"])
def test_the_template_alias_is_the_tenants_own_connection(three, tenant_id):
    with tenant_context_bind(tenant_id):
        assert connections["default"] is connections[f"{tenant_id}_default"]
        assert connections["default"].alias == f"{tenant_id}_default"
        assert connection.settings_dict["NAME"] == str(three.directory / f"{tenant_id}.db")
        assert connections.settings["default"] is connections.settings[f"{tenant_id}_default"]
        assert connections.settings["default"] is connection.settings_dict


def test_everything_that_means_default_means_the_tenant(three):
    with tenant_context_bind("t1"):
        note = Note.objects.create(text="orm")
        Note.objects.using("default").create(text="using")
        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO app_note (text) VALUES ('raw')")
        assert note._state.db == "t1_default"
        assert Note.objects.using("t1_default").count() == 3
    for other in ("t10", "a.test"):
        with tenant_context_bind(other):
            assert Note.objects.count() == 0


def test_each_thread_has_its_own_connection_of_each_tenant(three):
    def wrapper_of(tenant_id):
        with tenant_context_bind(tenant_id):
            seen = connections["default"], connections["default"]
            connection.close()
            return seen

    mine = wrapper_of("t1")
    with ThreadPoolExecutor(1) as pool:
        theirs = pool.submit(wrapper_of, "t1").result()
    assert mine[0] is mine[1]
    assert mine[0] is not theirs[0]
    assert wrapper_of("t10")[0] is not mine[0]


def test_eight_threads_and_three_tenants_never_mix(three):
    for tenant_id in ("t1", "t10", "a.test"):
        record = three.record(tenant_id)
        record["orm_config"]["django_orm"]["default"]["OPTIONS"] = {"timeout": 60}  # who holds a lock may stand still
        three.arrived(tenant_id, three.put(tenant_id, record))

    def write(number):
        tenant_id = ("t1", "t10", "a.test")[number % 3]
        with tenant_context_bind(tenant_id), transaction.atomic():
            Note.objects.create(text=f"{tenant_id} {number}")
            seen = set(Note.objects.values_list("text", flat=True))
        connections.close_all()
        return all(text.startswith(f"{tenant_id} ") for text in seen)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(write, range(60)))
    for tenant_id in ("t1", "t10", "a.test"):
        with tenant_context_bind(tenant_id):
            assert Note.objects.count() == 20


def test_another_tenants_alias_is_refused_before_any_sql(three):
    with tenant_context_bind("t1"):
        for use in (
            lambda: connections["t10_default"],
            lambda: Note.objects.using("t10_default").count(),
            lambda: Note(text="x").save(using="t10_default"),
            lambda: transaction.atomic(using="t10_default").__enter__(),
            lambda: connections.settings["t10_default"],
        ):
            with pytest.raises(TenantMismatch, match=r"'t10_default' belongs to tenant 't10'.*'t1' is bound"):
                use()
    with tenant_context_bind("t10"):
        assert Note.objects.count() == 0


def test_an_alias_of_nobody_is_djangos_own_error(three):
    for alias in ("t2_default", "t1_other", "nobody", "t1_", "_default"):
        with pytest.raises(ConnectionDoesNotExist):
            connections[alias]
        assert alias not in connections.settings
        assert connections.settings.get(alias, 5) == 5


def test_a_wrapper_can_be_replaced_and_deleted(three):
    with tenant_context_bind("t1"):
        wrapper = connections["default"]
        del connections["default"]
        assert connections["default"] is not wrapper
        connections["default"].close()
        connections["t1_default"] = wrapper
        assert connections["default"] is wrapper


def test_a_copied_wrapper_still_works(three):
    with tenant_context_bind("t1"):
        duplicate = copy.copy(connections["default"])
        clone = connections["default"].copy()
        with clone.cursor() as cursor:
            cursor.execute("SELECT 1")
        clone.close()
        assert duplicate.alias == clone.alias == "t1_default"


def test_the_class_of_a_wrapper_looks_like_the_backends(three):
    with tenant_context_bind("t1"):
        assert type(connections["default"]).__module__ == "django.db.backends.sqlite3.base"
        assert connection.vendor == "sqlite"


# --- without a tenant ---


def test_an_unbound_template_answers_what_needs_no_connection(router):
    unbound = connections["default"]
    assert unbound is connections["default"] is connections[DEFAULT_DB_ALIAS]
    assert unbound.alias == "default"
    assert unbound.vendor == "sqlite"
    assert unbound.ops.quote_name("x") == '"x"'
    assert unbound.features.supports_transactions is not None
    assert unbound.settings_dict["ATOMIC_REQUESTS"] is False
    assert unbound.data_types["BooleanField"] == "bool"
    assert str(Note.objects.all().query).startswith("SELECT")
    unbound.close()
    unbound.close_if_unusable_or_obsolete()
    connections.close_all()


@pytest.mark.parametrize(
    "use",
    [
        lambda: connections["default"].cursor(),
        lambda: connections["default"].ensure_connection(),
        lambda: connections["default"].connect(),
        lambda: connections["default"].client.runshell([]),
        lambda: connections["default"].introspection.table_names(),
        lambda: connections["default"].schema_editor().__enter__(),
        lambda: transaction.atomic().__enter__(),
        lambda: transaction.on_commit(lambda: None),
        lambda: Note.objects.count(),
        lambda: Note.objects.create(text="x"),
        lambda: Note.objects.using("default").count(),
        lambda: list(Note.objects.raw("SELECT 1 AS id")),
        lambda: Note(text="x").save(),
        lambda: Note.objects.bulk_create([Note(text="x")]),
        lambda: connection.cursor().execute("SELECT 1"),
    ],
)
def test_without_a_tenant_the_first_use_is_refused(router, use):
    with pytest.raises(TenantContextMissing, match="no tenant is bound here"):
        use()


def test_the_templates_own_database_is_never_opened(three, tmp_path, monkeypatch):
    from pathlib import Path

    from django.conf import settings

    with pytest.raises(TenantContextMissing):
        Note.objects.count()
    assert not (Path(settings.BASE_DIR) / "template-must-not-be-opened").exists()
    assert not Path("template-must-not-be-opened").exists()


def test_the_atomic_decorator_of_an_unbound_call_leaves_the_thread_usable(three):
    @transaction.atomic
    def work():
        return Note.objects.count()

    with pytest.raises(TenantContextMissing):
        work()
    assert not connections["default"].in_atomic_block
    with tenant_context_bind("t1"):
        assert work() == 0


# --- an explicit alias ---


def test_an_explicit_alias_works_unbound(three):
    note = Note.objects.using("t1_default").create(text="x")
    assert note._state.db == "t1_default"
    note.text = "y"
    note.save()
    note.refresh_from_db()
    with connections["t1_default"].cursor() as cursor:
        cursor.execute("SELECT text FROM app_note")
        assert cursor.fetchall() == [("y",)]
    note.delete()
    assert not Note.objects.using("t1_default").exists()
    assert "t1_default" in connections.settings


def test_a_transaction_by_alias_unbound(three):
    with pytest.raises(ValueError), transaction.atomic(using="t1_default"):  # noqa: PT012
        Note.objects.using("t1_default").create(text="never")
        raise ValueError
    with transaction.atomic(using="t1_default"), transaction.atomic(using="t1_default"):
        Note.objects.using("t1_default").create(text="once")
    assert Note.objects.using("t1_default").count() == 1


def test_on_commit_of_an_explicit_alias_runs_as_that_tenant(three):
    seen = []
    with transaction.atomic(using="t1_default"):
        transaction.on_commit(lambda: seen.append(Note.objects.create(text="later")._state.db), using="t1_default")
    assert seen == ["t1_default"]
    with pytest.raises(TenantContextMissing):
        Note.objects.count()


def test_an_unbound_transaction_by_alias_ends_where_it_began(three):
    # given a transaction that only an alias names
    with transaction.atomic(using="t1_default"):
        Note.objects.using("t1_default").create(text="first")
        # when the tenant moves to another database meanwhile
        three.arrived("t1", three.put("t1", three.record("moved")))
        Note.objects.using("t1_default").create(text="second")
    # then the whole transaction is in the old one
    old = sqlite_rows(three.directory / "t1.db")
    assert old == ["first", "second"]
    assert connections["t1_default"].settings_dict["NAME"] == str(three.directory / "moved.db")
    assert not connections["t1_default"].in_atomic_block


def test_an_unbound_transaction_ends_although_its_tenant_was_deleted(three):
    with transaction.atomic(using="t1_default"):
        Note.objects.using("t1_default").create(text="first")
        three.arrived("t1", three.delete("t1"))
    assert sqlite_rows(three.directory / "t1.db") == ["first"]
    with pytest.raises(ConnectionDoesNotExist):
        connections["t1_default"]


def sqlite_rows(path):
    import sqlite3
    from contextlib import closing

    with closing(sqlite3.connect(path)) as plain:
        return [text for (text,) in plain.execute("SELECT text FROM app_note ORDER BY id")]


def test_the_alias_of_an_unavailable_tenant_is_for_operators(three):
    three.arrived("t1", three.put("t1", state="S"))
    assert Note.objects.using("t1_default").count() == 0
    with pytest.raises(TenantSuspended):
        tenant_context_manager.get_by_alias("t1_default")


# --- reserved aliases ---


def test_a_reserved_alias_is_djangos_own(three):
    unbound = connections["central"]
    with tenant_context_bind("t1"):
        assert connections["central"] is unbound
        with connections["central"].cursor() as cursor:
            cursor.execute("SELECT 1")
            assert cursor.fetchone() == (1,)
    assert type(unbound).__mro__[0].__name__ == "DatabaseWrapper"
    assert not hasattr(unbound, "slots")


def test_a_transaction_of_a_reserved_alias_may_span_tenants(three):
    with transaction.atomic(using="central"):
        with tenant_context_bind("t1"):
            Note.objects.create(text="x")
        with tenant_context_bind("t10"):
            assert Note.objects.count() == 0
    assert not connections["central"].in_atomic_block


def test_a_denied_context_denies_the_tenant_and_not_the_central_database(router):
    before = enter(DeniedContext("t1", TenantSuspended("tenant 't1' is suspended", "t1")))
    try:
        with pytest.raises(TenantSuspended):
            Note.objects.count()
        with pytest.raises(TenantSuspended):
            connections["default"].cursor()
        with connections["central"].cursor() as cursor:
            cursor.execute("SELECT 1")
    finally:
        leave(before)


# --- enumeration ---


def many(tenants, count):
    tenants.runtime.pipeline.eager_max = 0
    ops = [Op(f"many-{number}.test", "A", b"never read") for number in range(count)]
    for start in range(0, count, 5_000):
        tenants.commit(*ops[start : start + 5_000])
    eventually(lambda: tenants.runtime.pipeline.revision_of(f"many-{count - 1}.test"), 120)


@pytest.mark.timeout(60)
def test_a_signals_handler_may_use_a_database_wherever_it_interrupts(three, monkeypatch):
    """Celery beat saves its schedule, in a central database, in the handler of SIGTERM."""
    real, found = Budget.rest, []

    def interrupted(budget, connection):  # under the budget's lock
        if not found:
            found.append(None)
            signal.raise_signal(signal.SIGUSR1)
        real(budget, connection)

    def handler(*_):
        connections.close_all()
        with connections["central"].cursor() as cursor:
            found.append(cursor.execute("SELECT 1").fetchone())

    before = signal.signal(signal.SIGUSR1, handler)
    monkeypatch.setattr(Budget, "rest", interrupted)
    try:
        with tenant_context_bind("t1"):
            connection.ensure_connection()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert found == [None, (1,)]


def test_enumeration_is_static_with_ten_thousand_tenants(three):
    many(three, 10_000)
    with tenant_context_bind("t1"):
        assert list(connections) == ["default", "central"]
        assert list(connections.settings) == list(connections.settings.keys()) == ["default", "central"]
        assert len(connections.settings) == 2
        assert [wrapper.alias for wrapper in connections.all()] == ["t1_default", "central"]
        assert dict(connections.settings.items())["default"]["NAME"] == str(three.directory / "t1.db")
        assert connections.settings.copy()["default"] is connections["default"].settings_dict
        assert next(settings["NAME"] for settings in connections.settings.values()) == str(three.directory / "t1.db")
        assert connections.databases is connections.settings
    assert [wrapper.alias for wrapper in connections.all()] == ["default", "central"]
    assert connections.settings["default"]["ATOMIC_REQUESTS"] is False


def test_only_what_this_thread_has_opened_is_walked(three):
    connections.close_all()
    with tenant_context_bind("t1"):
        Note.objects.count()
        opened = connections.all(initialized_only=True)
    opened = [wrapper.alias for wrapper in opened if wrapper.connection is not None]
    assert [alias for alias in opened if alias != "central"] == ["t1_default"]
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(connections.all, initialized_only=True).result() == []


def test_what_a_thread_walks_does_not_grow_with_the_tenants_it_has_served(tenants):
    # given a thread that has served many tenants, one after the other, without persistent connections
    for number in range(40):
        tenants.put(f"t{number}")
    tenants.arrived("t39")

    def serve():
        for number in range(40):
            with tenant_context_bind(f"t{number}"):
                connection.ensure_connection()
                connection.close()
        return len(connections.all(initialized_only=True))

    # then a request of this thread has as little to walk as the first one had
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(serve).result() <= 1


# --- install, uninstall ---


def test_install_and_uninstall_are_idempotent(fresh_runtime):
    runtime = fresh_runtime()
    manager = runtime.orms["django_orm"]
    static = dict(connections.settings.static)
    manager.install()
    manager.install()
    assert type(connections) is TenantConnectionHandler
    assert set(connections.settings) == set(static)
    manager.uninstall()
    manager.uninstall()
    assert type(connections) is ConnectionHandler
    assert connections.settings == static
    assert not isinstance(connections.settings["default"], TenantContextMissing)
    manager.install()
    with pytest.raises(TenantContextMissing):
        connections["default"].ensure_connection()


def test_who_looked_a_template_up_before_the_installation_does_not_keep_it(fresh_runtime):
    runtime = fresh_runtime()
    runtime.uninstall()
    early = connections["default"]
    runtime = fresh_runtime()
    assert connections["default"] is not early
    with pytest.raises(TenantContextMissing):
        connections["default"].ensure_connection()


# --- several template aliases ---

TWO = {"main": {**SQLITE}, "archive": {**SQLITE}, "default": {**SQLITE, "NAME": ":memory:"}}


def record(directory, **names):
    return {"orm_config": {"django_orm": {alias: {"NAME": str(directory / name)} for alias, name in names.items()}}}


def test_two_template_aliases_beside_a_reserved_default(project):
    tenants = project(TWO, reserved={"default"}, DEFAULT_TEMPLATE_ALIAS="main")
    tenants.put("t1", record(tenants.directory, main="m1.db", archive="a1.db"))
    tenants.arrived("t1")
    for alias in ("main", "archive"):
        create_tables("t1", alias)
    with tenant_context_bind("t1"):
        assert Note.objects.create(text="x")._state.db == "t1_main"
        assert Note.objects.using("archive").create(text="y")._state.db == "t1_archive"
        assert connections["main"] is connections["t1_main"] is not connections["archive"]
        assert connections["default"].settings_dict["NAME"] == ":memory:"
        assert [wrapper.alias for wrapper in connections.all()] == ["t1_main", "t1_archive", "default"]
        with transaction.atomic(using="main"), transaction.atomic(using="archive"):
            pass
    assert list(connections) == ["main", "archive", "default"]
    assert Note.objects.using("t1_archive").get().text == "y"


def test_of_several_templates_default_is_the_one_that_is_meant(project):
    tenants = project({"archive": {**SQLITE}, "default": {**SQLITE}})
    tenants.put("t1", record(tenants.directory, default="m.db", archive="a.db"))
    tenants.arrived("t1")
    assert database_of("t1").endswith("m.db")


def test_the_only_template_is_meant_whatever_its_name(project):
    tenants = project({"only": {**SQLITE}, "default": {**SQLITE, "NAME": ":memory:"}}, reserved={"default"})
    tenants.put("t1", record(tenants.directory, only="m.db"))
    tenants.arrived("t1")
    create_tables("t1", "only")
    with tenant_context_bind("t1"):
        assert Note.objects.create(text="x")._state.db == "t1_only"


def test_several_templates_and_no_default_must_name_one(project):
    with pytest.raises(ConfigurationError, match=r"archive.*DEFAULT_TEMPLATE_ALIAS|main.*DEFAULT_TEMPLATE_ALIAS"):
        project(TWO, reserved={"default"})


def test_a_record_must_name_every_template(project):
    tenants = project({"archive": {**SQLITE}, "default": {**SQLITE}})
    manager = tenants.runtime.orms["django_orm"]
    with pytest.raises(RecordInvalid, match=r"orm_config.django_orm.archive.NAME"):
        manager.prepare("t1", {"default": {"NAME": "x.db"}}, None)


def test_aliases_that_end_alike_are_kept_apart(project):
    # with the templates x and a_x, t_a and t would both yield t_a_x: one of them may exist
    databases = {"x": {**SQLITE}, "a_x": {**SQLITE}, "default": {**SQLITE, "NAME": ":memory:"}}
    tenants = project(databases, reserved={"default"}, DEFAULT_TEMPLATE_ALIAS="x")
    tenants.put("t", record(tenants.directory, x="tx.db", a_x="tax.db"))
    tenants.put("u_a", record(tenants.directory, x="uax.db", a_x="uaax.db"))
    tenants.arrived("u_a")
    names = {alias: connections[alias].settings_dict["NAME"] for alias in ("t_x", "t_a_x", "u_a_x", "u_a_a_x")}
    assert {alias: name.rsplit("/", 1)[1] for alias, name in names.items()} == {
        "t_x": "tx.db",
        "t_a_x": "tax.db",
        "u_a_x": "uax.db",
        "u_a_a_x": "uaax.db",
    }


def test_another_engine_needs_to_be_allowed(project):
    tenants = project({"default": {**SQLITE}})
    config = {"default": {"NAME": "x", "ENGINE": "django.db.backends.postgresql"}}
    with pytest.raises(RecordInvalid, match="ALLOW_ENGINES"):
        tenants.runtime.orms["django_orm"].prepare("t1", config, None)
    tenants = project({"default": {**SQLITE}}, ALLOW_ENGINES=["django.db.backends.postgresql"])
    tenants.put("t1", {"orm_config": {"django_orm": config}})
    tenants.arrived("t1")
    with tenant_context_bind("t1"):
        assert connection.vendor == "postgresql"


def test_an_unknown_option_is_refused(project):
    with pytest.raises(ConfigurationError, match="MAX_OPEN_CONECTIONS"):
        project({"default": {**SQLITE}}, MAX_OPEN_CONECTIONS=5)
    with pytest.raises(ConfigurationError, match="RESERVED_CONN_ALIASES names 'centrel'"):
        project({"default": {**SQLITE}}, reserved={"centrel"})


def test_persistent_connections_are_refused_under_asgi(tenants):
    manager = tenants.runtime.orms["django_orm"]
    manager.asynchronous = True
    with pytest.raises(RecordInvalid, match="CONN_MAX_AGE: must be 0 under ASGI"):
        manager.prepare("t1", {"default": {"NAME": "x", "CONN_MAX_AGE": 60}}, None)


# --- an unreachable database ---


def test_an_unreachable_database_is_an_error_of_that_tenant_only(three):
    three.put("lost", three.record("no/such/folder/x"))
    three.arrived("lost")
    with tenant_context_bind("lost"), pytest.raises(OperationalError):
        Note.objects.count()
    opened = [w for w in connections._open.mine().wrappers.values() if w.connection is not None]
    assert three.runtime.orms["django_orm"].connections.budget.open_count() == len(opened)
    with tenant_context_bind("t1"):
        assert Note.objects.count() == 0


def test_a_thread_that_ends_takes_nothing_of_the_others(three):
    def use():
        with tenant_context_bind("t1"):
            Note.objects.count()
        connections.close_all()

    thread = threading.Thread(target=use)
    with tenant_context_bind("t1"):
        Note.objects.count()
        thread.start()
        thread.join()
        assert Note.objects.count() == 0
