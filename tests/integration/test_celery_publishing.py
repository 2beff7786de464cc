"""What a message says of tenants: its own header, and those of every signature that travels in it."""

import pytest
from celery import Celery, chain, chord, group
from celery.backends.base import BaseBackend

from tenant_router.celery import publishing
from tenant_router.context_decorators import tenant_context_bind
from tenant_router.exceptions import TenantMismatch

B = {"headers": {"tenant_id": "b.test"}}


@pytest.fixture
def app():
    made = Celery("publishing", broker="memory://", backend="cache+memory://", set_as_current=False)
    made.conf.task_default_queue = "publishing"
    yield made
    made.close()


@pytest.fixture
def task(app):
    @app.task(name="publishing.task", shared=False)
    def task(*args):
        return args

    return task


@pytest.fixture
def sent(app, quick_two):
    """A function that publishes as ``a.test`` and returns the message: its tenant, and what travels in it."""

    def send(signature):
        with tenant_context_bind("a.test"), app.connection_for_write() as connection:
            signature.apply_async(connection=connection)
            message = connection.SimpleQueue("publishing").get(timeout=5)
            message.ack()
        return message.headers["tenant_id"], message.payload[2]

    return send


def named(signature):
    return signature["options"]["headers"]["tenant_id"]


def test_the_bound_tenant_and_its_revision_are_named(sent, task):
    tenant, embedded = sent(task.s())
    assert tenant == "a.test"
    assert not any(embedded.values())


def test_a_header_of_the_application_is_kept(sent, task):
    assert sent(task.s().set(**B))[0] == "b.test"


def test_links_take_their_makers_tenant_unless_they_name_one(sent, task):
    links = [task.s(), task.s().set(**B)]
    _, embedded = sent(task.s().set(link=links, link_error=links, **B))
    assert [[named(one) for one in embedded[name]] for name in ("callbacks", "errbacks")] == [["a.test", "b.test"]] * 2


def test_what_is_linked_to_a_link_takes_it_too(sent, task):
    own = task.s().set(link_error=[task.s()], link=[task.s().set(link=[task.s()])], **B)
    _, embedded = sent(task.s().set(link=[own]))
    link = embedded["callbacks"][0]
    assert named(link) == "b.test"
    assert named(link["options"]["link_error"][0]) == "a.test"
    assert named(link["options"]["link"][0]["options"]["link"][0]) == "a.test"


def test_the_rest_of_a_chain_takes_it(sent, task):
    rest = [task.s(), task.s().set(**B), group(task.s(), task.s()), task.s()]
    tenant, embedded = sent(chain(task.s().set(**B), *rest))
    *_, second, first = embedded["chain"]
    assert (tenant, named(first), named(second)) == ("b.test", "a.test", "b.test")
    last = embedded["chain"][0]  # a group before a task becomes a chord
    assert [named(one) for one in last["kwargs"]["header"]["kwargs"]["tasks"]] == ["a.test", "a.test"]
    assert named(last["kwargs"]["body"]) == "a.test"


@pytest.mark.parametrize("hold", [group, chain])
def test_what_holds_other_tasks_names_none_that_would_take_the_place_of_theirs(sent, task, hold):
    """Celery sends each task of a group, and the first one of a chain, with the headers of what holds it."""
    _, embedded = sent(task.s().set(link=[hold(task.s().set(**B), task.s())]))
    (held,) = embedded["callbacks"]
    assert [named(one) for one in held["kwargs"]["tasks"]] == ["b.test", "a.test"]
    assert "headers" not in held["options"]


def test_signatures_are_not_changed_by_being_published(sent, task):
    link = task.s()
    sent(task.s().set(link=[link], **B))
    assert "headers" not in link.options


def test_a_link_that_is_stamped_already_stays_as_it_is(quick_two, task):
    once = publishing.stamped(task.s(), {"tenant_id": "a.test", "tenant_revision": 3})
    assert publishing.stamped(once, {"tenant_id": "b.test", "tenant_revision": 4}) == once


@pytest.mark.parametrize(
    "make",
    [
        lambda task: chord([task.s(), task.s().set(**B)], task.s()),
        lambda task: chain(group(task.s(), task.s().set(**B)), task.s()),
        lambda task: chain(task.s(), group(task.s(), task.s().set(**B)), task.s()),
        lambda task: group(task.s(), chord([task.s(), chain(task.s(), task.s().set(**B))], task.s())),
        lambda task: chord([task.s()], chord([task.s(), group(task.s(), task.s().set(**B))], task.s())),
    ],
    ids=["chord", "upgraded", "in a chain", "in a group", "in a body"],
)
def test_a_chord_of_two_tenants_is_refused_before_anything_is_sent(app, quick_two, task, make):
    with app.connection_for_write() as connection:
        with (
            tenant_context_bind("a.test"),
            pytest.raises(TenantMismatch, match=r"different tenants \(a.test, b.test\)"),
        ):
            make(task).apply_async(producer=app.amqp.Producer(connection))
        assert connection.SimpleQueue("publishing").qsize() == 0


def test_a_chord_of_another_tenant_waits_for_that_ones_results(app, quick_two, task):
    app.backend_cls = BaseBackend  # which counts nothing: a task polls the results
    with tenant_context_bind("a.test"), app.connection_for_write() as connection:
        chord([task.s().set(**B), task.s().set(**B)], task.s()).apply_async(connection=connection)
        queue = connection.SimpleQueue("publishing")
        messages = [queue.get(timeout=5) for _ in range(3)]
    unlock = [one for one in messages if one.headers["task"] == publishing.CHORD_UNLOCK]
    assert [one.headers["tenant_id"] for one in messages] == ["b.test"] * 3
    assert [named(one.payload[0][1]) for one in unlock] == ["a.test"]
