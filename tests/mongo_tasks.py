"""Tasks as one writes them for one tenant, of a project that keeps documents in MongoDB."""

import os

from celery import shared_task

from tests.fixtures_mongo import Models


@shared_task
def add_and_list(text):
    models = Models(os.environ["TESTS_MONGO_ORM"])
    models.add(text)
    return sorted(set(models.texts()))
