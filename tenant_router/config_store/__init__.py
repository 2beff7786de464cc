"""The config store: the key-value store of the tenants' records. Imports no Django."""
