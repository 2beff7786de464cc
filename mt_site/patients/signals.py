from functools import partial
from typing import Any

from django.db import transaction
from django.db.models.signals import post_delete, post_save
from django.dispatch import receiver

from patients import search
from patients.models import Patient


@receiver(post_save, sender=Patient)
def put_into_search(instance: Patient, **kwargs: Any) -> None:
    if search.is_on():  # robust: a search that is away must not undo or hide what was saved
        transaction.on_commit(partial(search.put, instance), robust=True)


@receiver(post_delete, sender=Patient)
def take_out_of_search(instance: Patient, **kwargs: Any) -> None:
    if search.is_on():
        transaction.on_commit(partial(search.remove, instance.pk), robust=True)
