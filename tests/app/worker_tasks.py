"""Tasks for a real worker: they report where they run, or do what applications do with tasks."""

import os
import signal
import time

from celery import Task, shared_task
from django.db import connection, transaction

from tenant_router.celery import binding, guard
from tenant_router.context import stack
from tenant_router.exceptions import TenantNotFound, TenantUnavailable
from tests.app.models import Note

guard.RETRIES = {TenantNotFound: 2, TenantUnavailable: 100}
guard.MAX_COUNTDOWN = 0.1
binding.CATCH_UP = 20.0


def place():
    """Which tenant and database the running code finds, and how many tenants are bound."""
    bound = stack.get()[1:]  # the first is the unit of work
    return {
        "tenant": bound[-1].id if bound else None,
        "revision": bound[-1].revision if bound else None,
        "depth": len(bound),
        "database": os.path.basename(str(connection.settings_dict["NAME"])),
        "pid": os.getpid(),
    }


@shared_task
def where(*args):
    return place()


@shared_task
def bound_tenants():
    """What a task without tenant finds bound: nothing, whatever ran on this process before."""
    return [context.id for context in stack.get()[1:]]


@shared_task
def write(text):
    Note.objects.create(text=text)
    return place()


@shared_task(bind=True, max_retries=3)
def write_at_second_try(self, text):
    if self.request.retries == 0:
        raise self.retry(countdown=0.01)
    return write(text) | {"retries": self.request.retries}


@shared_task(bind=True, max_retries=1, default_retry_delay=0.01)
def fail_always(self):
    raise self.retry(exc=ValueError(f"tried {self.request.retries + 1} times"))


@shared_task(autoretry_for=(KeyError,), max_retries=1, retry_backoff=False, default_retry_delay=0.01)
def fail_and_retry_by_itself():
    raise KeyError("always")


@shared_task
def fail():
    Note.objects.count()
    raise ValueError("as it should")


@shared_task
def hand_on(text):
    """A task that sends a task."""
    return write.delay(text).id


@shared_task
def hand_on_when_committed(text):
    with transaction.atomic():
        Note.objects.create(text=f"{text} first")
        transaction.on_commit(lambda: write.delay(f"{text} then"))
    return place()


@shared_task
def leave_a_transaction_open():
    connection.set_autocommit(False)
    Note.objects.create(text="uncommitted")
    transaction.atomic().__enter__()
    return place()


@shared_task
def end_this_process():
    os.kill(os.getpid(), signal.SIGKILL)


@shared_task
def wait_and_report(seconds):
    """Where it began and where it ends."""
    before = place() | {"notes": Note.objects.count()}
    time.sleep(seconds)
    return [before, place() | {"notes": Note.objects.count()}]


class OwnBase(Task):
    """As applications have it: a base class with a ``before_start`` that forgets ``super()``."""

    abstract = True

    def before_start(self, task_id, args, kwargs):
        self.begun = True


@shared_task(base=OwnBase)
def with_own_base(text):
    print(f"the body of {text} runs")
    return write(text)
