"""Help for testing: multi-tenant applications, and backends of the config store."""
