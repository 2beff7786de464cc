"""From ``tenant_config.json`` to one record per tenant, or to all that is wrong with it and where.

Other rooms import what is listed here; nothing in this room knows what a database is.
"""

from tenant_router.config_file.document import MAX_FILE_SIZE, ConfigFile, check_record, parse, read

__all__ = ["MAX_FILE_SIZE", "ConfigFile", "check_record", "parse", "read"]
