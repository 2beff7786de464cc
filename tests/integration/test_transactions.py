"""Transactions belong to one tenant, from their first statement to their last."""

import asyncio
import os
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from unittest import mock

import pytest
from django.conf import settings
from django.db import IntegrityError, connection, connections, transaction
from django.test import Client, override_settings

from tenant_router import context
from tenant_router.context_decorators import carry_tenant, tenant_context_bind
from tenant_router.exceptions import TenantContextMissing, TransactionOpen
from tenant_router.managers import tenant_context_manager
from tenant_router.managers.task_local import tls_tenant_manager
from tests.app.models import Note
from tests.fixtures_orm import SQLITE, create_tables


def texts(tenant_id):
    with tenant_context_bind(tenant_id):
        return sorted(Note.objects.values_list("text", flat=True))


def is_locked(path):
    """Whether a transaction has locked the SQLite file: a write from outside would wait."""
    with closing(sqlite3.connect(path, timeout=0)) as plain:
        try:
            plain.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return True
        plain.rollback()
    return False


# --- within one tenant ---


def test_a_rollback_rolls_the_tenants_database_back(three):
    with tenant_context_bind("t1"):
        with pytest.raises(ValueError), transaction.atomic():  # noqa: PT012
            Note.objects.create(text="orm")
            with connection.cursor() as cursor:
                cursor.execute("INSERT INTO app_note (text) VALUES ('raw')")
            raise ValueError
    assert texts("t1") == []


def test_savepoints(three):
    with tenant_context_bind("t1"), transaction.atomic():
        Note.objects.create(text="kept")
        with pytest.raises(IntegrityError), transaction.atomic():
            Note.objects.create(text="kept")
        point = transaction.savepoint()
        Note.objects.create(text="undone")
        transaction.savepoint_rollback(point)
    assert texts("t1") == ["kept"]


def test_on_commit_runs_after_the_commit_as_the_tenant(three):
    seen = []
    with tenant_context_bind("t1"):
        with transaction.atomic():
            Note.objects.create(text="x")
            transaction.on_commit(lambda: seen.append((context.current().id, texts("t1"))))
            assert seen == []
    assert seen == [("t1", ["x"])]


def test_on_commit_of_a_rolled_back_transaction_never_runs(three):
    with tenant_context_bind("t1"):
        with pytest.raises(ValueError), transaction.atomic():  # noqa: PT012
            transaction.on_commit(lambda: pytest.fail("it ran"))
            raise ValueError


def test_the_same_tenant_may_be_bound_again_inside(three):
    with tenant_context_bind("t1"), transaction.atomic():
        with tenant_context_bind("t1"):
            Note.objects.create(text="x")
        tls_tenant_manager.push_tenant_context(tenant_context_manager.get_by_id("t1"))
        Note.objects.create(text="y")
        tls_tenant_manager.pop_tenant_context()
    assert texts("t1") == ["x", "y"]


def test_a_rollback_only_transaction_says_so(three):
    with tenant_context_bind("t1"):
        with transaction.atomic():
            Note.objects.create(text="x")
            transaction.set_rollback(True)
        assert not connection.in_atomic_block
    assert texts("t1") == []


def test_manual_transactions(three):
    with tenant_context_bind("t1"):
        transaction.set_autocommit(False)
        try:
            Note.objects.create(text="undone")
            transaction.rollback()
            Note.objects.create(text="kept")
            transaction.commit()
        finally:
            transaction.set_autocommit(True)
    assert texts("t1") == ["kept"]


# --- crossing ---


def test_another_tenant_cannot_be_bound_inside_a_transaction(three):
    with tenant_context_bind("t1"), transaction.atomic():
        Note.objects.create(text="x")
        with pytest.raises(TransactionOpen, match="'t1_default': end it before tenant 't10' is bound"):
            tenant_context_bind("t10").__enter__()
        # what was refused changed nothing
        assert context.current().id == "t1"
        Note.objects.create(text="y")
    assert texts("t1") == ["x", "y"]
    assert texts("t10") == []


def test_pushing_another_tenant_inside_a_transaction_is_refused(three):
    with tenant_context_bind("t1"), transaction.atomic():
        with pytest.raises(TransactionOpen):
            tls_tenant_manager.push_tenant_context(tenant_context_manager.get_by_id("t10"))
    assert context.current() is None


def usable(tenants):
    """The thread works on with both tenants, and nobody holds a lock."""
    assert context.current() is None
    for tenant_id in ("t1", "t10"):
        assert not is_locked(tenants.directory / f"{tenant_id}.db")
        with tenant_context_bind(tenant_id):
            assert not connection.in_atomic_block
            with transaction.atomic():
                Note.objects.create(text=f"after {tenant_id}")
        assert texts(tenant_id) == [f"after {tenant_id}"]


def test_a_tenant_cannot_be_popped_inside_its_transaction(three):
    tls_tenant_manager.push_tenant_context(tenant_context_manager.get_by_id("t1"))
    block = transaction.atomic()
    block.__enter__()
    Note.objects.create(text="lost")
    with pytest.raises(TransactionOpen, match="end it before tenant 't1' is left"):
        tls_tenant_manager.pop_tenant_context()
    usable(three)


def test_a_block_that_leaves_a_transaction_open_reports_it(three):
    with pytest.raises(TransactionOpen):  # noqa: PT012
        with tenant_context_bind("t1"):
            transaction.atomic().__enter__()
            Note.objects.create(text="lost")
    usable(three)


def test_leaving_an_inner_tenants_transaction_open_is_reported_too(three):
    with tenant_context_bind("t10"):
        with pytest.raises(TransactionOpen, match="t1_default"):  # noqa: PT012
            with tenant_context_bind("t1"):
                transaction.atomic().__enter__()
                Note.objects.create(text="lost")
        assert context.current().id == "t10"
        assert Note.objects.count() == 0
    usable(three)


def test_the_error_in_a_block_is_not_hidden_by_its_open_transaction(three):
    with pytest.raises(TransactionOpen) as caught:  # noqa: PT012
        with tenant_context_bind("t1"):
            transaction.atomic().__enter__()
            raise KeyError("the cause")
    assert isinstance(caught.value.__context__, KeyError)
    usable(three)


def test_an_atomic_block_that_was_abandoned_can_be_left(three):
    block = transaction.atomic()
    with pytest.raises(TransactionOpen):  # noqa: PT012
        with tenant_context_bind("t1"):
            block.__enter__()
            Note.objects.create(text="lost")
    with pytest.raises(TenantContextMissing):
        block.__exit__(None, None, None)
    usable(three)


def test_a_generator_may_hold_a_transaction_over_its_yield(three):
    @tenant_context_bind("t1")
    def writer():
        with transaction.atomic():
            for number in range(3):
                Note.objects.create(text=f"n{number}")
                yield number

    assert list(writer()) == [0, 1, 2]
    assert texts("t1") == ["n0", "n1", "n2"]


def test_two_generators_of_two_tenants_may_take_turns(three):
    def writer():
        with transaction.atomic():
            for number in range(3):
                Note.objects.create(text=f"n{number}")
                yield

    for _ in zip(tenant_context_bind("t1")(writer)(), tenant_context_bind("t10")(writer)(), strict=True):
        assert context.current() is None
    assert texts("t1") == texts("t10") == ["n0", "n1", "n2"]


def test_a_generator_that_is_closed_rolls_back(three):
    @tenant_context_bind("t1")
    def writer():
        with transaction.atomic():
            Note.objects.create(text="undone")
            yield

    steps = writer()
    next(steps)
    steps.close()
    # GeneratorExit goes through atomic() as an exception
    assert texts("t1") == []
    assert not is_locked(three.directory / "t1.db")


def test_a_carried_function_has_a_transaction_of_its_own(three):
    def write():
        with transaction.atomic():
            Note.objects.create(text="carried")
        connections.close_all()

    with tenant_context_bind("t1"):
        with ThreadPoolExecutor(1) as pool:
            pool.submit(carry_tenant(write)).result()
        with transaction.atomic():
            assert Note.objects.count() == 1


def test_a_tenant_bound_inside_its_own_explicit_transaction_may_be_left(three):
    # the block is left by the same alias that it was entered by, so nothing is left behind
    with transaction.atomic(using="t1_default"):
        Note.objects.using("t1_default").create(text="outer")
        with tenant_context_bind("t1"):
            Note.objects.create(text="inner")
        Note.objects.using("t1_default").create(text="outer again")
    assert texts("t1") == ["inner", "outer", "outer again"]


# --- requests ---


@pytest.fixture
def atomic_requests(project):
    """Tenants of a project whose template says ATOMIC_REQUESTS."""
    databases = {"default": {**SQLITE, "ATOMIC_REQUESTS": True}, "central": {**SQLITE, "NAME": ":memory:"}}
    tenants = project(databases, reserved={"central"})
    for tenant_id in ("a.test", "b.test"):
        tenants.put(tenant_id)
        tenants.arrived(tenant_id)
        create_tables(tenant_id)
    return tenants


@pytest.fixture
def begun(monkeypatch):
    """The aliases on which transactions were begun, by ``Atomic``."""
    aliases, enter = [], transaction.Atomic.__enter__

    def counting(self):
        if not self._from_testcase:
            aliases.append(transaction.get_connection(self.using).alias)
        return enter(self)

    monkeypatch.setattr(transaction.Atomic, "__enter__", counting)
    return aliases


def test_atomic_requests_opens_exactly_one_transaction(atomic_requests, begun):
    client = Client(headers={"host": "a.test"})
    assert client.get("/whoami/").json()["alias"] == "a.test_default"
    assert begun == ["a.test_default"]


def test_atomic_requests_rolls_a_failed_view_back(atomic_requests, monkeypatch):
    from tests.app import views

    def failing(request):
        Note.objects.create(text="never")
        raise ValueError("boom")

    monkeypatch.setattr(views, "boom", failing)
    with override_settings(ROOT_URLCONF=_urls(failing)):
        client = Client(headers={"host": "a.test"}, raise_request_exception=False)
        assert client.get("/fails/").status_code == 500
    assert texts("a.test") == []


def _urls(view):
    from types import ModuleType

    from django.urls import path

    module = ModuleType("failing_urls")
    module.urlpatterns = [path("fails/", view)]
    return module


def test_a_whitelisted_view_opens_no_transaction(atomic_requests, begun):
    assert Client(headers={"host": "a.test"}).get("/health/").content == b"TenantContextMissing"
    assert [alias for alias in begun if alias == "default"] == []


def test_a_tenant_may_differ_from_its_template_in_atomic_requests(atomic_requests, begun):
    record = atomic_requests.record("b.test")
    record["orm_config"]["django_orm"]["default"]["ATOMIC_REQUESTS"] = False
    atomic_requests.arrived("b.test", atomic_requests.put("b.test", record))
    assert Client(headers={"host": "b.test"}).get("/whoami/").status_code == 200
    assert begun == []


def test_non_atomic_requests_means_the_template(atomic_requests, begun):
    @transaction.non_atomic_requests
    def view(request):
        from django.http import HttpResponse

        return HttpResponse(str(connection.in_atomic_block))

    with override_settings(ROOT_URLCONF=_urls(view)):
        assert Client(headers={"host": "a.test"}).get("/fails/").content == b"False"
    assert begun == []


def test_concurrent_requests_of_two_tenants_commit_to_their_own(atomic_requests):
    def post(number):
        host = ("a.test", "b.test")[number % 2]
        client = Client(headers={"host": host})
        answer = client.post("/notes/", {"text": f"{host} {number}"}, content_type="application/json")
        connections.close_all()
        return answer.status_code

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(post, range(24))) == {200}
    for host in ("a.test", "b.test"):
        assert len(texts(host)) == 12
        assert all(text.startswith(host) for text in texts(host))


def test_a_thread_that_dies_in_a_transaction_commits_nothing(three):
    def work():
        with tenant_context_bind("t1"):
            with pytest.raises(SystemExit), transaction.atomic():  # noqa: PT012
                Note.objects.create(text="never")
                raise SystemExit
        connections.close_all()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert texts("t1") == []


def test_the_settings_of_the_tests_name_a_template_that_is_never_opened():
    assert settings.DATABASES["default"]["NAME"] == "template-must-not-be-opened"


# --- generators that end within another tenant's transaction ---


def _close(steps):
    steps.close()


def _drop(steps):
    pass  # the caller's reference was the last one


def _step(steps):
    with pytest.raises(TransactionOpen):
        next(steps)


@pytest.mark.parametrize("end", [_close, _drop, _step])
def test_a_generator_clears_up_as_its_own_tenant_within_another_ones_transaction(three, end):
    @tenant_context_bind("t1")
    def rows():
        try:
            yield 1
            yield 2
        finally:
            Note.objects.create(text="cleared up")

    generators = [rows()]
    next(generators[0])
    with tenant_context_bind("t10"), transaction.atomic():
        Note.objects.create(text="of t10")
        end(generators.pop())
        assert context.current().id == "t10"
    assert (texts("t1"), texts("t10")) == (["cleared up"], ["of t10"])


def test_an_async_generator_does_so_too(three):
    @tenant_context_bind("t1")
    async def rows():
        try:
            yield 1
        finally:
            # in this thread, where the transaction is
            with override_async_unsafe():
                Note.objects.create(text="cleared up")

    async def main():
        steps = rows()
        await anext(steps)
        with override_async_unsafe(), tenant_context_bind("t10"), transaction.atomic():
            Note.objects.create(text="of t10")
            await steps.aclose()

    asyncio.run(main())
    assert (texts("t1"), texts("t10")) == (["cleared up"], ["of t10"])


@contextmanager
def override_async_unsafe():
    with mock.patch.dict(os.environ, DJANGO_ALLOW_ASYNC_UNSAFE="1"):
        yield
