"""``DjangoOrmRouter``, alone and below the project's own routers."""

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connections, router, transaction
from django.test import override_settings

from tenant_router import context
from tenant_router.context_decorators import tenant_context_bind
from tenant_router.exceptions import ConfigurationError, TenantContextMissing, TenantMismatch
from tenant_router.orm_backends.base import BaseOrmMigrationAsst, MigrationRun
from tenant_router.orm_backends.django_orm.manager import DjangoOrmManager
from tenant_router.orm_backends.django_orm.router import DjangoOrmRouter
from tests.app.models import Book, Note, Plan, Shelf
from tests.fixtures_orm import SQLITE, create_tables

ROUTER = "tenant_router.orm_backends.django_orm.router.DjangoOrmRouter"
HERE = "tests.integration.test_router"


def tables(alias):
    return set(connections[alias].introspection.table_names())


# --- scenario 1: one database, replicated across tenants ---


@pytest.fixture
def scenario_1(project):
    with override_settings(DATABASE_ROUTERS=[ROUTER]):
        tenants = project({"default": {**SQLITE}})
        for tenant_id in ("some_tenant_a", "some_tenant_b"):
            tenants.put(tenant_id, migrate=True)
        yield tenants


def test_scenario_1_reads_writes_relations_and_migrations(scenario_1):
    for tenant_id in ("some_tenant_a", "some_tenant_b"):
        alias = f"{tenant_id}_default"
        with tenant_context_bind(tenant_id):
            assert router.db_for_read(Note) == router.db_for_write(Note) == alias
            shelf = Shelf.objects.create(name=tenant_id)
            book = Book.objects.create(shelf=shelf, title="x")
            assert shelf._state.db == book._state.db == alias
            assert router.allow_relation(shelf, book)
            assert router.allow_migrate(alias, "app")
            assert {"app_note", "app_plan", "auth_user", "django_session"} <= tables(alias)
    with tenant_context_bind("some_tenant_a"):
        assert [book.shelf.name for book in Book.objects.select_related("shelf")] == ["some_tenant_a"]


# --- scenario 2: a central database and tenants' own; the routers and settings are the reference's ---


class CustomRouter:
    def db_for_read(self, model, **hints):
        if model._meta.model_name == "plan":
            return "central_db"
        return None

    def db_for_write(self, model, **hints):
        if model._meta.model_name == "plan":
            return "central_db"

        return None

    def allow_relation(self, *args, **kwargs):
        return None

    def allow_migrate(self, db, app_label, model_name=None, **hints):
        if db == "central_db":
            return model_name == "plan"
        return None


strategy_calls = []


def migrate_strategy(router, db, app_label, model_name=None, **hints):
    strategy_calls.append((router, db, app_label, model_name))
    if model_name == "plan":
        return False
    if app_label == "app":
        return True

    return None


@pytest.fixture
def scenario_2(project, tmp_path):
    strategy_calls.clear()
    with override_settings(DATABASE_ROUTERS=[f"{HERE}.CustomRouter", ROUTER]):
        tenants = project(
            {"default": {**SQLITE}, "central_db": {**SQLITE, "NAME": str(tmp_path / "central.db")}},
            reserved={"central_db"},
            ROUTER_OPTS={"MIGRATE_STRATEGY": f"{HERE}.migrate_strategy"},
        )
        tenants.put("some_tenant_a", migrate=True)
        tenants.put("some_tenant_b", migrate=True)
        call_command("migrate", database="central_db", verbosity=0)
        yield tenants
        connections["central_db"].close()


def test_scenario_2_models_go_where_they_belong(scenario_2):
    with tenant_context_bind("some_tenant_a"):
        plan = Plan.objects.create(name="central")
        note = Note.objects.create(text="own")
        assert (plan._state.db, note._state.db) == ("central_db", "some_tenant_a_default")
    with tenant_context_bind("some_tenant_b"):
        assert Plan.objects.get().name == "central"
        assert not Note.objects.exists()
    # the central model needs no tenant
    assert Plan.objects.get().name == "central"
    with pytest.raises(TenantContextMissing):
        Note.objects.exists()


def test_scenario_2_migrates_what_the_strategy_says(scenario_2):
    assert {"app_note", "app_book"} <= tables("some_tenant_a_default")
    assert "app_plan" not in tables("some_tenant_a_default")
    assert tables("central_db") - {"django_migrations"} == {"app_plan"}
    assert all(isinstance(call[0], DjangoOrmRouter) for call in strategy_calls)
    assert {call[1] for call in strategy_calls} == {"some_tenant_a_default", "some_tenant_b_default"}


def test_scenario_2_the_value_of_the_strategy_is_the_answer(scenario_2):
    own = DjangoOrmRouter()
    with tenant_context_bind("some_tenant_a"):
        assert own.allow_migrate("some_tenant_a_default", "app", model_name="plan") is False
        assert own.allow_migrate("some_tenant_a_default", "app", model_name="note") is True
        assert own.allow_migrate("some_tenant_a_default", "auth") is None
    assert own.allow_migrate("central_db", "app", model_name="note") is None


def test_scenario_2_relations_stay_within_one_database(scenario_2):
    plan = Plan.objects.create(name="central")
    with tenant_context_bind("some_tenant_a"):
        shelf, note = Shelf.objects.create(name="x"), Note.objects.create(text="y")
        assert router.allow_relation(shelf, note)
        assert not router.allow_relation(shelf, plan)


def test_scenario_2_transactions_of_both_databases(scenario_2):
    with tenant_context_bind("some_tenant_a"):
        with pytest.raises(ValueError), transaction.atomic(), transaction.atomic(using="central_db"):  # noqa: PT012
            Note.objects.create(text="never")
            Plan.objects.create(name="never")
            raise ValueError
        assert not Note.objects.exists()
        assert not Plan.objects.exists()


def test_a_strategy_that_cannot_be_imported_says_so(project):
    with override_settings(DATABASE_ROUTERS=[ROUTER]):
        tenants = project({"default": {**SQLITE}}, ROUTER_OPTS={"MIGRATE_STRATEGY": "no.such.thing"})
        tenants.put("t1")
        tenants.arrived("t1")
        with tenant_context_bind("t1"), pytest.raises(ConfigurationError, match=r"no\.such\.thing"):
            router.allow_migrate("t1_default", "app")


# --- instances and tenants ---


def test_an_instance_of_one_tenant_cannot_be_used_under_another(three):
    with tenant_context_bind("t1"):
        note, shelf = Note.objects.create(text="x"), Shelf.objects.create(name="s")
    with tenant_context_bind("t10"):
        with pytest.raises(TenantMismatch, match="an instance of Note from 't1_default'"):
            router.db_for_write(Note, instance=note)
        for use in (note.save, note.delete, note.refresh_from_db, lambda: list(shelf.book_set.all())):
            with pytest.raises(TenantMismatch):
                use()
        with pytest.raises((TenantMismatch, ValueError)):
            Book(shelf=shelf, title="x").save()
        with pytest.raises((TenantMismatch, ValueError)):
            Book.objects.create(shelf=shelf, title="x")
        assert not Book.objects.exists()
        assert not Note.objects.exists()


def test_what_was_read_by_the_templates_alias_belongs_to_the_tenant_of_then(three):
    with tenant_context_bind("t1"):
        Note.objects.create(text="x")
        note = Note.objects.using("default").get()
    with tenant_context_bind("t10"), pytest.raises(TenantMismatch):
        note.save()


def test_relations_between_tenants_are_never_allowed(three):
    # defect (j): allow_relation was always true
    with tenant_context_bind("t1"):
        shelf = Shelf.objects.create(name="x")
    with tenant_context_bind("t10"):
        other = Shelf.objects.create(name="y")
    assert not router.allow_relation(shelf, other)
    assert router.allow_relation(shelf, shelf)


def test_an_instance_used_unbound_stays_with_its_tenant(three):
    with tenant_context_bind("t1"):
        note = Note.objects.create(text="x")
    note.text = "y"
    note.save()
    note.refresh_from_db()
    assert Note.objects.using("t1_default").get().text == "y"


def test_a_pickled_queryset_and_instance_stay_with_their_tenant(three):
    import pickle

    with tenant_context_bind("t1"):
        Note.objects.create(text="x")
        note = pickle.loads(pickle.dumps(Note.objects.get()))
        assert note._state.db == "t1_default"
    with tenant_context_bind("t10"), pytest.raises(TenantMismatch):
        note.delete()


def test_without_a_tenant_the_router_answers_the_templates_alias_and_the_connection_refuses(router):
    from django.db import router as master

    assert master.db_for_read(Note) == master.db_for_write(Note) == master.db_for_write(User) == "default"
    assert Note.objects.all().db == "default"
    for use in (lambda: Note.objects.create(text="x"), lambda: len(Note.objects.all())):
        with pytest.raises(TenantContextMissing, match="database alias 'default'"):
            use()


def test_without_a_tenant_the_router_answers_the_chosen_template(project):
    with override_settings(DATABASE_ROUTERS=[ROUTER]):
        project({"default": SQLITE, "x": SQLITE, "y": SQLITE}, reserved={"default"}, DEFAULT_TEMPLATE_ALIAS="y")
        assert router.db_for_write(Note) == "y"


def test_a_module_that_asks_the_router_serves_every_tenant(three):
    """As in a view's module: what was answered at import is right for whoever is bound later."""
    alias = router.db_for_write(Note)

    @transaction.atomic(using=alias)
    def view(text):
        transaction.on_commit(lambda: seen.append(Note.objects.using(alias).get(text=text)._state.db), using=alias)
        Note.objects.using(alias).create(text=text)
        assert connections[alias].in_atomic_block

    seen = []
    for tenant_id in ("t1", "t10"):
        with tenant_context_bind(tenant_id):
            view(f"of {tenant_id}")
            assert [note.text for note in Note.objects.all()] == [f"of {tenant_id}"]
    assert seen == ["t1_default", "t10_default"]
    with pytest.raises(TenantContextMissing):
        view("of nobody")


def test_nothing_is_migrated_to_a_template_while_no_tenant_is_bound(three):
    from django.db import router as master

    assert master.allow_migrate("default", "app") is False
    with tenant_context_bind("t1"):
        assert master.allow_migrate("default", "app") is True
    assert master.allow_migrate("t1_default", "app") is True


def test_the_router_works_when_built_anew(three):
    with tenant_context_bind("t1"):
        assert DjangoOrmRouter().db_for_read(Note) == "t1_default"
    assert vars(DjangoOrmRouter()) == {}


def test_users_of_two_tenants_with_one_name(two):
    for tenant_id in ("a.test", "b.test"):
        with tenant_context_bind(tenant_id):
            User.objects.create_user("ann", password=f"of {tenant_id}")
    with tenant_context_bind("a.test"):
        assert User.objects.get().check_password("of a.test")


# --- custom manager, custom migration assistant ---


class CustomMigrationAsst(BaseOrmMigrationAsst):
    runs = []

    def perform_migrate(self):
        self.runs.append((self.manager.orm_id, self.options, [context.id for context in self.run.contexts]))


class CustomManager(DjangoOrmManager):
    def prepare(self, tenant_id, config, previous):
        databases = super().prepare(tenant_id, config, previous)
        databases.note = f"prepared for {tenant_id}"
        return databases


def test_a_custom_migration_assistant(project):
    CustomMigrationAsst.runs.clear()
    assistant = {"CLASS": f"{HERE}.CustomMigrationAsst", "OPTIONS": {"jobs": 3}}
    tenants = project({"default": {**SQLITE}}, MIGRATION_ASST=assistant)
    tenants.put("t1")
    tenants.arrived("t1")
    with tenant_context_bind("t1") as bound:
        run = MigrationRun(contexts=[bound])
    assert tenants.runtime.orms["django_orm"].migrate_to_all(run) is True
    call_command("migrate_all", verbosity=0)
    # migrate_all takes every known tenant that is not being deleted
    assert CustomMigrationAsst.runs == [("django_orm", {"jobs": 3}, ["t1"])] * 2


@pytest.mark.parametrize("chosen", [{"CLASS": "no.such"}, {}, {"CLASS": "os.getcwd"}, {"CLASS": "os.path"}])
def test_a_wrong_migration_assistant_says_so(project, chosen):
    tenants = project({"default": {**SQLITE}}, MIGRATION_ASST=chosen)
    with pytest.raises(ConfigurationError, match="MIGRATION_ASST"):
        _ = tenants.runtime.orms["django_orm"].migration_asst


def test_a_custom_manager(project, fresh_runtime, monkeypatch):
    from django.conf import settings

    orms = {"django_orm": {"MANAGER": f"{HERE}.CustomManager", "SETTINGS_KEY": "DATABASES"}}
    tenants = project({"default": {**SQLITE}})
    monkeypatch.setattr(settings, "TENANT_ROUTER_ORM_SETTINGS", orms)
    tenants.runtime = fresh_runtime()
    assert type(tenants.runtime.orms["django_orm"]) is CustomManager
    tenants.put("t1")
    with tenant_context_bind("t1"):
        assert context.current().parts["django_orm"].note == "prepared for t1"
        create_tables("t1")
        assert Note.objects.count() == 0


@pytest.mark.parametrize("path", ["no.such.Manager", "os.path.join", "tests.app.models.Note"])
def test_a_wrong_manager_says_so(project, fresh_runtime, monkeypatch, path):
    from django.conf import settings

    project({"default": {**SQLITE}})
    orms = {"django_orm": {"MANAGER": path, "SETTINGS_KEY": "DATABASES"}}
    monkeypatch.setattr(settings, "TENANT_ROUTER_ORM_SETTINGS", orms)
    with pytest.raises(ConfigurationError, match="MANAGER"):
        fresh_runtime()
