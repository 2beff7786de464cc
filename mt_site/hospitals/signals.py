from typing import Any

from django.db import transaction
from django.db.models.signals import post_delete, post_save
from django.dispatch import receiver

from hospitals.listing import forget
from hospitals.models import Hospital


@receiver([post_save, post_delete], sender=Hospital)
def forget_listing(**kwargs: Any) -> None:
    transaction.on_commit(forget)
