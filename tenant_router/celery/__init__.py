"""Celery: tasks run bound to the tenant that published them, without a line in the application."""
