"""Tasks as one writes them for one tenant."""

from celery import shared_task
from django.db import connection

from tests.app.models import Note


@shared_task
def add_note(text):
    Note.objects.create(text=text)
    return str(connection.settings_dict["NAME"])


@shared_task
def database_name():
    return str(connection.settings_dict["NAME"])
