"""Receivers as applications have them: each writes what happened into the database that it finds."""

from celery import signals

BY_TASK_ID = ("task_prerun", "task_postrun", "task_failure", "task_internal_error")
BY_REQUEST = ("task_received", "task_revoked", "task_retry")


def connect(when):
    """Connect a receiver to each signal of a task; ``when`` is the first word of what they write."""
    for name in BY_TASK_ID:
        _connect(when, name, lambda task_id=None, **_: task_id)
    for name in BY_REQUEST:
        _connect(when, name, lambda request=None, **_: request.id)
    _connect(when, "task_success", lambda sender=None, **_: sender.request.id)
    _connect(when, "task_unknown", lambda id=None, **_: id)
    _connect(when, "task_rejected", lambda message=None, **_: message.headers["id"])


def _connect(when, name, id_of):
    def receive(**given):
        task = given.get("request") or given.get("sender")
        if getattr(task, "name", None) == "celery.backend_cleanup":
            return  # it is nobody's, until it is sent again for each tenant
        note(f"{when} {name} {id_of(**given)}")

    getattr(signals, name).connect(receive, weak=False)


def note(text):
    from tests.app.models import Note

    Note.objects.get_or_create(text=text)
