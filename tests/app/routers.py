class CentralRouter:
    """Sends one model to the reserved alias and has no opinion on the others."""

    def db_for_read(self, model, **hints):
        return "central" if model._meta.model_name == "plan" else None

    db_for_write = db_for_read

    def allow_relation(self, one, other, **hints):
        return None

    def allow_migrate(self, db, app_label, model_name=None, **hints):
        if model_name == "plan":
            return db == "central"
        return False if db == "central" else None


class ResultsRouter:
    """Keeps the results of all tenants' tasks in the reserved alias."""

    def db_for_read(self, model, **hints):
        return "central" if model._meta.app_label == "django_celery_results" else None

    db_for_write = db_for_read

    def allow_migrate(self, db, app_label, **hints):
        return db == "central" if app_label == "django_celery_results" else None
