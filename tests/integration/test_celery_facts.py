"""What the code relies on in Celery. Each of these fails when a new Celery changes it."""

import inspect
import logging
from types import SimpleNamespace

import pytest
from celery import Celery, Task, canvas, chord, signals
from celery.app.task import Context
from celery.app.trace import build_tracer
from celery.backends.base import BaseBackend
from celery.concurrency import get_implementation, prefork
from celery.utils.dispatch import Signal
from celery.worker import loops, strategy
from celery.worker.request import Request, create_request_cls

NAME = "facts.task"


@pytest.fixture
def app():
    made = Celery("facts", broker="memory://", backend="cache+memory://", set_as_current=False)
    yield made
    made.close()


@pytest.fixture
def connected():
    """Connect receivers for the time of a test."""
    made = []

    def connect(signal, receiver):
        signal.connect(receiver, weak=False)
        made.append((signal, receiver))

    yield connect
    for signal, receiver in made:
        signal.disconnect(receiver)


def task_of(app, function, **options):
    """A task made of any function, of this application alone; Celery wants a name that it can define again."""
    function.__name__ = "body"
    return app.task(function, **{"name": NAME, "shared": False, **options})


def as_worker(task, app, **headers):
    """Run a task as a worker does with a message of those headers."""
    tracer = build_tracer(task.name, task, app=app)
    request = {"id": "id", "task": task.name, "delivery_info": {}, **headers}
    return tracer("id", (), {}, request)


def test_custom_headers_of_a_message_are_attributes_of_the_request_at_prerun(app, connected):
    seen = []
    connected(signals.task_prerun, lambda task, **_: seen.append((task.request.id, task.request.mark)))
    as_worker(task_of(app, lambda: None), app, mark="a.test")
    assert seen == [("id", "a.test")]


def test_what_a_prerun_receiver_raises_is_swallowed_and_the_body_runs(app, connected, caplog):
    def refuse(**kwargs):
        raise RuntimeError("not this one")

    ran = []
    connected(signals.task_prerun, refuse)
    with caplog.at_level(logging.CRITICAL):
        as_worker(task_of(app, lambda: ran.append(1)), app)
    assert ran == [1]


def test_an_exception_of_before_start_fails_the_task_before_its_body(app):
    class Guarded(Task):
        def before_start(self, task_id, args, kwargs):
            raise KeyError("refused")

    ran = []
    found = as_worker(task_of(app, lambda: ran.append(1), base=Guarded), app)
    assert (ran, found.info.state) == ([], "FAILURE")


def test_before_start_replaced_on_the_base_class_is_called(app, monkeypatch):
    """Celery skips the hook where it believes that it is its own empty one."""
    called = []

    def before_start(self, task_id, args, kwargs):
        called.append(task_id)

    monkeypatch.setattr(Task, "before_start", before_start)
    as_worker(task_of(app, lambda: None), app)
    assert called == ["id"]


def test_before_start_replaced_on_an_instance_is_called_where_the_class_has_its_own(app):
    class Own(Task):
        def before_start(self, task_id, args, kwargs):
            called.append("own")

    called = []
    task = task_of(app, lambda: None, base=Own)
    task.before_start = lambda *args: called.append("ours")
    as_worker(task, app)
    assert called == ["ours"]


@pytest.mark.parametrize("body", [lambda: None, lambda: 1 / 0])
def test_postrun_is_sent_with_the_request_still_there(app, connected, body, caplog):
    seen = []
    connected(signals.task_postrun, lambda task, **_: seen.append(task.request.mark))
    with caplog.at_level(logging.CRITICAL):
        as_worker(task_of(app, body), app, mark="a.test")
    assert seen == ["a.test"]


def test_an_eager_task_publishes_nothing_and_has_its_headers_in_one_place(app, connected):
    published, seen = [], []
    connected(signals.before_task_publish, lambda **_: published.append(1))
    app.conf.task_always_eager = True
    task = task_of(app, lambda self: seen.append(self.request), bind=True)
    connected(signals.task_prerun, lambda task, **_: seen.append((task.request.headers, hasattr(task.request, "x"))))
    task.apply_async(headers={"x": "1"})
    assert published == []
    assert seen[0] == ({"x": "1"}, False)


def test_the_headers_at_publication_are_what_is_sent(app, connected):
    """So that a receiver can add to them."""
    connected(signals.before_task_publish, lambda headers, **_: headers.update(mark="a.test"))
    task = task_of(app, lambda: None)
    with app.connection_for_write() as connection:
        task.apply_async(connection=connection, queue="facts")
        message = connection.SimpleQueue("facts").get(timeout=5)
        message.ack()
    assert message.headers["mark"] == "a.test"


def test_the_signature_of_a_request_keeps_headers_and_retries(app):
    seen = []
    task = task_of(app, lambda self: seen.append(self.signature_from_request(headers={"x": 1}, retries=3)), bind=True)
    as_worker(task, app, mark="a.test")
    assert seen[0].options["headers"] == {"x": 1}
    assert seen[0].options["retries"] == 3
    seen.clear()
    keeping = task_of(app, lambda self: seen.append(self.signature_from_request()), bind=True, name="facts.keeping")
    as_worker(keeping, app, mark="a.test")
    assert seen[0].options["headers"]["mark"] == "a.test"


def test_a_limit_given_to_retry_stays_on_the_task_object(app, caplog):
    """Why the guard does not call ``retry(max_retries=...)``."""

    def body(self):
        raise self.retry(max_retries=77, countdown=0)

    task = task_of(app, body, bind=True)
    with caplog.at_level(logging.CRITICAL):
        as_worker(task, app)
    assert task.override_max_retries == 77


@pytest.mark.parametrize(("pool", "forks"), [("prefork", True), ("threads", False), ("solo", False)])
def test_the_module_of_a_pool_tells_whether_it_forks(pool, forks):
    assert ("prefork" in get_implementation(pool).__module__) is forks


def test_system_exit_leaves_a_receiver():
    """``worker_init`` receivers can stop the worker by it alone."""

    def stop(**kwargs):
        raise SystemExit("one line")

    signal = Signal(name="facts")
    signal.connect(stop, weak=False)
    with pytest.raises(SystemExit, match="one line"):
        signal.send(sender=None)


def test_all_tracers_are_made_by_one_function(app, monkeypatch):
    """Of the consumer, which has imported its name, of a prefork worker's children, and of an eager task."""
    from celery.app import trace
    from celery.worker.consumer import consumer

    made = []
    for module in (trace, consumer):
        monkeypatch.setattr(
            module, "build_tracer", lambda name, *args, **kwargs: made.append(name) or (lambda *_: None)
        )
    holder = SimpleNamespace(app=app, strategies={}, loader=None, hostname="", pool=None)
    for task in app.tasks.values():
        task.start_strategy = lambda *args: None
    consumer.Consumer.update_strategies(holder)
    assert set(made) == set(app.tasks)
    made.clear()
    with pytest.raises(AttributeError):  # there is no answer in this test
        task_of(app, lambda: None).apply()
    assert made == [NAME]
    assert "from celery.app.trace import build_tracer" in inspect.getsource(prefork.process_initializer)


def test_messages_and_requests_have_one_maker_each():
    assert "create_request_cls(" in inspect.getsource(strategy.default)
    for loop in (loops.asynloop, loops.synloop):
        assert "obj.create_task_handler()" in inspect.getsource(loop)


def test_the_pool_reports_to_the_methods_of_a_request(app):
    seen = {}
    pool = SimpleNamespace(apply_async=lambda *args, **kwargs: seen.update(kwargs))
    task = task_of(app, lambda: None)
    made = create_request_cls(Request, task, pool, "here", None, app=app)
    request = made.__new__(made)
    request._task, request._app, request.id = task, app, "id"
    for name in ("_type", "_request_dict", "_body", "_content_type", "_content_encoding"):
        setattr(request, name, {} if name == "_request_dict" else None)
    request._expires = None
    request.execute_using_pool(pool)
    assert (seen["timeout_callback"], seen["error_callback"]) == (request.on_timeout, request.on_failure)


def test_every_state_is_stored_by_one_method(app):
    class Kept(BaseBackend):
        def store_result(self, task_id, result, state, *args, **kwargs):
            stored.append(state)

    stored, backend = [], Kept(app)
    backend.mark_as_started("id")
    backend.mark_as_done("id", None)
    backend.mark_as_failure("id", KeyError())
    backend.mark_as_retry("id", KeyError())
    backend.mark_as_revoked("id")
    assert stored == ["STARTED", "SUCCESS", "FAILURE", "RETRY", "REVOKED"]


def test_a_failure_is_handed_on_by_three_methods(app):
    class Heard(BaseBackend):
        def store_result(self, *args, **kwargs):
            pass

        def _fail_chain(self, chain, *args, **kwargs):
            heard.append(chain)

        def _call_task_errbacks(self, request, exc, traceback):
            heard.append(request.errbacks)

    heard, backend = [], Heard(app)
    backend.mark_as_failure("id", KeyError(), request=Context(chain=["link"], errbacks=["errback"]))
    assert heard == [["link"], ["errback"]]
    body = app.signature("body", options={"link_error": ["of the body"], "task_id": "id"})
    try:
        raise KeyError
    except KeyError as error:
        backend.chord_error_from_stack(body, error)
    assert heard[2] == ["of the body"]


def test_a_chord_begins_in_one_method(app, monkeypatch):
    begun = []
    monkeypatch.setattr(canvas._chord, "run", lambda self, header, body, *args, **kwargs: begun.append(body.task))
    task = task_of(app, lambda *args: None)
    chord([task.s(), task.s()], task.s()).apply_async()
    assert begun == [NAME]


def test_what_a_receiver_at_publication_raises_is_swallowed(app, connected, caplog):
    """Why it cannot refuse a chord."""

    def refuse(**kwargs):
        raise RuntimeError("not this one")

    connected(signals.before_task_publish, refuse)
    with app.connection_for_write() as connection, caplog.at_level(logging.CRITICAL):
        task_of(app, lambda: None).apply_async(connection=connection, queue="swallowed")
        assert connection.SimpleQueue("swallowed").get(timeout=5).headers["task"] == NAME


def test_a_before_start_that_says_it_is_celerys_own_is_not_called(app, monkeypatch):
    """Why what replaces it keeps the name of its own module."""
    called = []

    def before_start(self, task_id, args, kwargs):
        called.append(task_id)

    before_start.__module__ = "celery.app.task"
    monkeypatch.setattr(Task, "before_start", before_start)
    as_worker(task_of(app, lambda: None), app)
    assert called == []
