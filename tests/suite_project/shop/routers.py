class DocumentRouter:
    """Returns an alias of its own, a template's."""

    def db_for_read(self, model, **hints):
        return "documents" if model._meta.model_name == "document" else None

    db_for_write = db_for_read

    def allow_migrate(self, db, app_label, model_name=None, **hints):
        if app_label == "shop" and model_name == "document":
            return db == "documents"
        return False if db == "documents" else None
