"""Tasks whose end comes in every way in which a task's end can come."""

import os
import signal
import time

from celery import Task, chain, chord, group, shared_task
from celery.exceptions import SoftTimeLimitExceeded
from celery.result import AsyncResult
from celery.worker.request import Request

from tests.app import celery_receivers
from tests.app.celery_receivers import note
from tests.app.worker_tasks import place

celery_receivers.connect("late")


class NotingRequest(Request):
    """As applications have it: what the main process is told of a task."""

    def on_accepted(self, pid, time_accepted):
        note(f"accepted {self.id}")
        super().on_accepted(pid, time_accepted)

    def on_timeout(self, soft, timeout):
        note(f"timeout {self.id}")
        super().on_timeout(soft, timeout)


class Noting(Task):
    """A base class that writes, too."""

    abstract = True
    Request = f"{__name__}:NotingRequest"

    def on_failure(self, exc, task_id, args, kwargs, einfo):
        note(f"on_failure {task_id}")

    def after_return(self, status, retval, task_id, args, kwargs, einfo):
        note(f"after_return {task_id}")


@shared_task(base=Noting)
def sleep(seconds):
    note(f"sleeps {sleep.request.id}")
    time.sleep(seconds)


@shared_task(base=Noting, soft_time_limit=0.3)
def sleep_softly():
    try:
        time.sleep(60)
    except SoftTimeLimitExceeded:
        note(f"soft {sleep_softly.request.id}")
        raise


@shared_task(base=Noting, acks_late=True)
def lose_the_worker():
    os.kill(os.getpid(), signal.SIGKILL)


@shared_task(base=Noting)
def raise_error(*args):
    raise KeyError("as it should")


@shared_task(bind=True, max_retries=3)
def try_twice(self):
    if not self.request.retries:
        raise self.retry(countdown=1)  # the second try must not end before the first one is over


@shared_task(track_started=True)
def tracked():
    return place()


@shared_task
def new_errback(request, exc, traceback):
    note(f"new_errback {request.id}")


@shared_task
def old_errback(task_id):
    note(f"old_errback {task_id}")


@shared_task
def tenant(*args):
    """Who runs this."""
    return place()["tenant"]


@shared_task
def tenants(found=None):
    """Who ran what this is given, and who runs this."""
    return [*(found or []), place()["tenant"]]


@shared_task
def state_of(task_id):
    """What an ``AsyncResult`` says here."""
    return AsyncResult(task_id).state


def _of(tenant_id):
    return {"headers": {"tenant_id": tenant_id}}


MADE = {
    "chord": lambda: chord([tenant.s(), tenant.s()], tenants.s()),
    "chord of b": lambda: chord([tenant.s().set(**_of("b.test"))] * 2, tenants.s()),
    "chord for b": lambda: chord([tenant.s(), tenant.s()], tenants.s().set(**_of("b.test"))),
    "chord of two": lambda: chord([tenant.s(), tenant.s().set(**_of("b.test"))], tenants.s()),
    "chord that fails": lambda: chord([tenant.s(), raise_error.s()], tenants.s().on_error(old_errback.s())),
    "chord of b that fails": lambda: chord(
        [raise_error.s().set(**_of("b.test"))] * 2, tenants.s().on_error(old_errback.s())
    ),
    "chord that loses a worker": lambda: chord(
        [tenant.s(), lose_the_worker.s()], tenants.s().on_error(new_errback.s())
    ),
    "chain": lambda: chain(tenants.s(), tenants.s().set(**_of("b.test")), tenants.s()),
    "chain that ends in a chord": lambda: chain(
        tenants.s().set(**_of("b.test")), group(tenant.s(), tenant.s()), tenants.s()
    ),
    "chain that fails": lambda: chain(raise_error.s(), tenants.s().set(**_of("b.test")), tenants.s()),
    "callback": lambda: tenant.s().set(link=new_callback.s(), **_of("b.test")),
    "errbacks": lambda: raise_error.s().set(link_error=[old_errback.s(), new_errback.s()], **_of("b.test")),
    "map": lambda: tenant.map([1, 2]),
    "starmap": lambda: tenant.starmap([(1, 2), (3, 4)]),
    "chunks": lambda: tenant.chunks([(1,), (2,), (3,)], 2),
    "group": lambda: group(tenant.s(), tenant.s().set(**_of("b.test"))),
}


@shared_task
def new_callback(found):
    note(f"callback of {found}")


@shared_task
def make(kind):
    """Send something that consists of several tasks; the ids of what comes of it, the last one first."""
    sent = MADE[kind]().apply_async()
    ids = []
    while sent is not None:
        ids.append(sent.id)
        ids += [one.id for one in getattr(sent, "results", None) or ()]
        sent = sent.parent
    return ids
