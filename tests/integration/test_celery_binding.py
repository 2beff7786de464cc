"""The door of a task, and of what a worker's main process does: in one process, without a broker."""

import logging

import pytest
from celery import Celery
from celery.app.trace import build_tracer
from celery.backends.base import Backend, BaseBackend
from celery.worker.request import Request
from django.db import OperationalError, connection, transaction

from tenant_router import context as _context
from tenant_router.celery import binding, cleanup, consumer
from tenant_router.context_decorators import tenant_context_bind
from tenant_router.exceptions import TenantContextMissing
from tenant_router.managers import tenant_context_manager
from tenant_router.managers.task_local import tls_tenant_manager
from tests.app.models import Note


class Results(BaseBackend):
    """A result backend whose results lie with the tenant that is bound."""

    stored: dict = {}

    def _store_result(self, task_id, result, state, traceback=None, request=None, **kwargs):
        self.stored[connection.settings_dict["NAME"], connection.cursor() and task_id] = state

    def _get_task_meta_for(self, task_id):
        state = self.stored.get((connection.settings_dict["NAME"], task_id), "PENDING")
        return {"status": state, "result": None, "task_id": task_id}


@pytest.fixture
def app(quick_two):
    made = Celery("binding", broker="memory://", set_as_current=False)
    made.backend_cls = Results
    made.conf.result_cache_max = 10
    Results.stored = {}
    yield made
    made.close()


def run(app, function, **headers):
    """Run a function as a worker runs a task with a message of those headers."""
    function.__name__ = "body"
    task = app.task(function, name=f"binding.{len(app.tasks)}", shared=False)
    app.finalize()
    trace = build_tracer(task.name, task, app=app)
    return trace(task.name, (), {}, {"id": task.name, "task": task.name, "delivery_info": {}, **headers})


def push_and_fail():
    tls_tenant_manager.push_tenant_context(tenant_context_manager.get_by_id("b.test"))
    raise ValueError("before the pop")


def write():
    Note.objects.create(text="whose?")


@pytest.mark.parametrize("headers", [{}, {"tenant_id": "a.test"}], ids=["central", "of a tenant"])
def test_what_a_task_pushed_and_never_popped_binds_no_other_task(app, caplog, headers):
    run(app, push_and_fail, **headers)
    assert _context.stack.get() == ()
    found = run(app, write)
    assert isinstance(found.info.retval, TenantContextMissing)
    with tenant_context_bind("b.test"):
        assert not Note.objects.exists()


def test_what_is_bound_where_a_worker_runs_tasks_in_its_main_thread_stays(app):
    with tenant_context_bind("a.test"), transaction.atomic():
        before = _context.stack.get()
        run(app, write, tenant_id="b.test")
        assert _context.stack.get() is before
        assert not Note.objects.exists()
    with tenant_context_bind("b.test"):
        assert Note.objects.count() == 1


def test_a_transaction_left_open_in_the_main_thread_of_the_same_tenant_is_rolled_back(app, caplog):
    def leave_it_open():
        transaction.atomic().__enter__()
        Note.objects.create(text="uncommitted")

    before = binding.bind_late({"tenant_id": "a.test"})
    run(app, leave_it_open, tenant_id="a.test")
    binding.leave(before)
    with tenant_context_bind("a.test"):
        assert not Note.objects.exists()


def test_a_task_ends_its_unit(app):
    units = []

    def keep():
        Note.objects.count()
        units.append(_context.stack.get()[0])

    run(app, keep, tenant_id="a.test")
    assert (units[0].over, units[0].closes, len(units[0].uses)) == (True, True, 0)


def test_a_tenant_bound_late_is_looked_up_once_at_its_first_use(quick_two, monkeypatch):
    asked = []
    find = binding.find
    monkeypatch.setattr(binding, "find", lambda *given: asked.append(given[0]) or find(*given))
    for _ in range(2):
        outer = binding.bind_late({"tenant_id": "b.test"})
        before = binding.bind_late({"tenant_id": "a.test"})
        assert asked == []
        binding.leave(before)
        binding.leave(outer)
    before = binding.bind_late({"headers": {"tenant_id": "a.test"}})
    Note.objects.create(text="late")
    assert _context.current().id == "a.test"
    unit = _context.stack.get()[0]
    binding.leave(before)
    assert asked == ["a.test"]
    assert (unit.over, unit.closes, len(unit.uses), _context.stack.get()) == (True, True, 0, ())


def test_a_tenant_bound_late_that_is_unknown_denies_everything(quick_two):
    before = binding.bind_late({"tenant_id": "nobody.test"})
    with pytest.raises(Exception, match=r"nobody.test"):
        Note.objects.count()
    binding.leave(before)


def test_a_message_without_tenant_unbinds_what_was_left(quick_two):
    tls_tenant_manager.push_tenant_context(tenant_context_manager.get_by_id("b.test"))
    before = binding.bind_late({})
    with pytest.raises(TenantContextMissing):
        Note.objects.count()
    binding.leave(before)
    tls_tenant_manager.pop_tenant_context()


def test_a_result_that_was_read_is_kept_for_its_tenant_alone(app):
    with tenant_context_bind("a.test"):
        app.backend.store_result("one", None, "SUCCESS")
        assert app.backend.get_state("one") == "SUCCESS"
        assert app.backend.is_cached("one")
    with tenant_context_bind("b.test"):
        assert app.backend.get_state("one") == "PENDING"
    with tenant_context_bind("a.test"):
        app.backend.forget = Backend.forget.__get__(app.backend)
        app.backend._forget = lambda task_id: None
        app.backend.forget("one")
        assert not app.backend.is_cached("one")


def test_a_result_that_no_tenant_can_take_is_logged_and_dropped(app, caplog):
    with caplog.at_level(logging.ERROR):
        assert run(app, lambda: None).info is None
    assert "is dropped" in caplog.text


def test_results_are_cleaned_up_for_each_active_tenant(app, quick_two):
    cleaned, sent = [], []
    app.backend.cleanup = lambda: cleaned.append(Note.objects.count())
    task = app.tasks[cleanup.TASK]
    task.apply_async = lambda headers: sent.append(headers["tenant_id"])
    quick_two.put("paused.test", state="S")
    quick_two.arrived("paused.test")
    for headers in ({}, {"tenant_id": "a.test"}):
        trace = build_tracer(task.name, task, app=app)
        trace("id", (), {}, {"id": "id", "task": task.name, "delivery_info": {}, **headers})
    assert (sorted(sent), cleaned) == (["a.test", "b.test"], [0])


class Ended:
    """A request of which is told what fails for its tenant."""

    name, id, request_dict = "task", "id", {"tenant_id": "a.test"}

    def __init__(self):
        self.acknowledged, self.told = False, []

    def acknowledge(self):
        self.acknowledged = True

    def on_timeout(self, error):
        self.told.append(_context.current().id)
        raise error


for name in (consumer._REPORTED | consumer._OVERRIDDEN) - set(vars(Ended)):
    setattr(Ended, name, getattr(Request, name))


@pytest.mark.parametrize("error", [TenantContextMissing("no tenant"), OperationalError("no database")])
def test_no_tenants_trouble_ends_the_main_process(quick_two, caplog, error):
    request = consumer._bound_requests(lambda base, task: base)(Ended, None)()
    request.on_timeout(error)
    assert (request.acknowledged, request.told) == (True, ["a.test"])
    assert "task task[id] is let go" in caplog.text
    with pytest.raises(MemoryError):
        request.on_timeout(MemoryError())
    assert _context.stack.get() == ()
