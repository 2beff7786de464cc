class AuditRouter:
    """The central database's router."""

    def db_for_read(self, model, **hints):
        return "central" if model._meta.app_label == "audit" else None

    db_for_write = db_for_read

    def allow_relation(self, one, other, **hints):
        return None

    def allow_migrate(self, db, app_label, **hints):
        if app_label == "audit" or db == "central":
            return app_label == "audit" and db == "central"
        return None
