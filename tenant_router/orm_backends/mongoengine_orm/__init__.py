"""MongoEngine: documents of a template alias are the bound tenant's."""
