"""The machinery of ``make demo``: services, site and tenants, started and stopped as one."""
