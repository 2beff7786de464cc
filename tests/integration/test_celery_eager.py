"""Eager tasks run inside of what is bound around them."""

import pytest
from celery import Celery, shared_task
from celery.exceptions import Retry
from django.db import connection, transaction

from tenant_router.context import stack
from tenant_router.context_decorators import tenant_context_bind
from tenant_router.exceptions import TenantContextMissing, TenantNotFound, TransactionOpen
from tenant_router.managers import tenant_context_manager
from tenant_router.managers.task_local import tls_tenant_manager
from tests.app.models import Note


@pytest.fixture
def eager():
    app = Celery("eager", set_as_current=False)
    app.conf.update(task_always_eager=True, task_eager_propagates=True)
    yield app
    app.close()


def task_of(app, function):
    """A task of this application alone: it shares them with all others unless it is told otherwise."""
    return app.task(function, shared=False)


def bound():
    return [context.id for context in stack.get()[1:]]


def database():
    return connection.alias


def count():
    return Note.objects.count()


def test_an_eager_task_inherits_the_tenant_and_leaves_it(quick_two, eager):
    task = task_of(eager, database)
    with tenant_context_bind("a.test"):
        with tenant_context_bind("b.test"):
            assert task.delay().get() == "b.test_default"
        assert task.delay().get() == "a.test_default"
        assert bound() == ["a.test"]
    with pytest.raises(TenantContextMissing):
        task_of(eager, count).delay()


def test_an_eager_task_that_raises_leaves_what_was_bound(quick_two, eager):
    def fail():
        raise KeyError

    with tenant_context_bind("a.test"):
        with pytest.raises(KeyError):
            task_of(eager, fail).apply_async(headers={"tenant_id": "b.test"})
        assert bound() == ["a.test"]


@pytest.mark.parametrize("options", [{}, {"headers": {"tenant_id": "a.test"}}], ids=["inherited", "its own"])
def test_what_an_eager_task_pushed_and_never_popped_does_not_bind_its_caller(quick_two, eager, options):
    def push_and_fail():
        tls_tenant_manager.push_tenant_context(tenant_context_manager.get_by_id("b.test"))
        raise KeyError

    with tenant_context_bind("a.test"):
        with pytest.raises(KeyError):
            task_of(eager, push_and_fail).apply_async(**options)
        assert bound() == ["a.test"]


def test_an_eager_task_of_another_tenant_is_bound_to_that_one(quick_two, eager):
    with tenant_context_bind("a.test"):
        assert task_of(eager, database).apply_async(headers={"tenant_id": "b.test"}).get() == "b.test_default"
        assert bound() == ["a.test"]


def test_an_eager_task_of_another_tenant_cannot_run_inside_a_transaction(quick_two, eager):
    ran = []

    def run():
        ran.append(database())

    task = task_of(eager, run)
    with tenant_context_bind("a.test"):
        with transaction.atomic():
            with pytest.raises(TransactionOpen):
                task.apply_async(headers={"tenant_id": "b.test"})
            assert bound() == ["a.test"]
            Note.objects.create(text="goes on")
        assert Note.objects.count() == 1
    assert ran == []


def test_an_eager_task_of_an_unknown_tenant_never_runs(quick_two, eager, monkeypatch):
    from tenant_router.celery import guard

    monkeypatch.setattr(guard, "RETRIES", {TenantNotFound: 2})
    ran = []

    def run():
        ran.append(1)

    task = task_of(eager, run)
    with tenant_context_bind("a.test"), pytest.raises((TenantNotFound, Retry)):
        task.apply_async(headers={"tenant_id": "unknown.test"}).get()
    assert ran == []


def test_a_shared_task_runs_eagerly_in_the_projects_own_application(quick_two):
    @shared_task(name="shared.database")
    def shared():
        return database()

    with tenant_context_bind("a.test"):
        assert shared.apply().get() == "a.test_default"
