"""What a tenant's record may say of a database: the allow-lists, for all engines and for each.

A record is data. What names a local file, a service file, another database, a command, a start-up
option, a class or a plugin is not among them; it comes from the template in the settings, or is
allowed by name in ``OPTIONS["ALLOW_OPTIONS"]`` of the ORM. The keys are those of libpq
(``PQconninfoOptions``), psycopg's ``connect`` and ``ConnectionPool``, mysqlclient's ``Connection``,
``sqlite3.connect`` and oracledb's ``connect``, and what Django takes out of them before.
"""

from __future__ import annotations

from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from tenant_router.allow_lists import AllowList, Choice, Flag, Group, Number, Text


class _Zone:
    """A time zone that is known here, or ``None``: of an unknown one Django complains at each use of the database."""

    _name = Text("a time zone", r"[A-Za-z0-9_+-]+(?:/[A-Za-z0-9_+-]+)*", 64, none=True)

    def fault(self, value: Any) -> str | None:
        """See ``allow_lists.Kind``."""
        wrong = self._name.fault(value)
        if wrong is not None or value is None:
            return wrong
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError, OSError):  # OSError for the folder of a continent
            return "is no time zone that is known here"
        return None

    def parse(self, text: str) -> Any:
        """See ``allow_lists.Kind``."""
        return text


DAY = 86_400
MAX_POOL = 100  # connections
_SECONDS = Number(0, DAY, fraction=True)
_WHOLE_SECONDS = Number(0, DAY)
_NAME = Text("a name", r"[\w.$-]+", 63)
_WORD = Text("a name of letters, digits and _", r"\w+", 64)
_TLS_VERSION = Choice("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")

# TEST is for test runs, whose tenants live in the templates' databases: what a record says there reaches none.
TEST: AllowList = {
    "NAME": Text("a name", none=True, most=255),
    "CHARSET": Text("a name", r"\w+", 64, none=True),
    "COLLATION": Text("a name", r"[\w.@-]+", 64, none=True),
    "MIGRATE": Flag(),
    "SERIALIZE": Flag(),
}

_POSTGRESQL: AllowList = {
    "application_name": Text("text", r"[\x20-\x7e]*", 63),
    "fallback_application_name": Text("text", r"[\x20-\x7e]*", 63),
    "assume_role": _NAME,
    "connect_timeout": _WHOLE_SECONDS,
    "tcp_user_timeout": Number(0, DAY * 1_000),  # milliseconds
    "keepalives": Choice(0, 1),
    "keepalives_idle": _WHOLE_SECONDS,
    "keepalives_interval": _WHOLE_SECONDS,
    "keepalives_count": Number(0, 1_000),
    "sslmode": Choice("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    "sslnegotiation": Choice("postgres", "direct"),
    "sslrootcert": Choice("system"),  # anything else is a file
    "sslsni": Choice(0, 1),
    "ssl_min_protocol_version": _TLS_VERSION,
    "ssl_max_protocol_version": _TLS_VERSION,
    "channel_binding": Choice("disable", "prefer", "require"),
    "gssencmode": Choice("disable", "prefer", "require"),
    "require_auth": Text("a list of methods", r"!?[a-z0-9-]+(?:,!?[a-z0-9-]+)*", 100),
    "target_session_attrs": Choice("any", "read-write", "read-only", "primary", "standby", "prefer-standby"),
    "load_balance_hosts": Choice("disable", "random"),
    "isolation_level": Choice(1, 2, 3, 4),  # psycopg's IsolationLevel
    "prepare_threshold": Number(0, 1_000_000, none=True),
    "server_side_binding": Flag(),
    "pool": Group(
        {
            "min_size": Number(0, MAX_POOL),
            "max_size": Number(1, MAX_POOL),
            "max_waiting": Number(0, 100_000),
            "max_idle": _SECONDS,
            "max_lifetime": _SECONDS,
            "timeout": _SECONDS,
            "reconnect_timeout": _SECONDS,
        },
        (True, False),
    ),
}
# charset, collation and sql_mode become part of a statement, unquoted (MySQLdb/connections.py): words only
_MYSQL: AllowList = {
    "connect_timeout": _WHOLE_SECONDS,
    "read_timeout": _WHOLE_SECONDS,
    "write_timeout": _WHOLE_SECONDS,
    "charset": Choice("utf8mb4", "utf8mb3", "utf8", "latin1", "ascii"),
    "collation": _WORD,
    "compress": Flag(),
    "isolation_level": Choice("read uncommitted", "read committed", "repeatable read", "serializable", None),
    "sql_mode": Text("a list of modes", r"[A-Za-z0-9_]+(?:,[A-Za-z0-9_]+)*", 500),
    "ssl_mode": Choice("DISABLED", "PREFERRED", "REQUIRED", "VERIFY_CA", "VERIFY_IDENTITY"),
}
_SQLITE: AllowList = {
    "timeout": Number(0, DAY, fraction=True),
    "transaction_mode": Choice("DEFERRED", "IMMEDIATE", "EXCLUSIVE", None),
    "cached_statements": Number(0, 10_000),
}
_ORACLE: AllowList = {
    "expire_time": Number(0, DAY),  # minutes
    "retry_count": Number(0, 1_000),
    "retry_delay": _WHOLE_SECONDS,
    "ssl_server_dn_match": Flag(),
    "stmtcachesize": Number(0, 10_000),
    "tcp_connect_timeout": _SECONDS,
    "use_returning_into": Flag(),
    "pool": Group(
        {
            "min": Number(0, MAX_POOL),
            "max": Number(1, MAX_POOL),
            "increment": Number(0, MAX_POOL),
            "timeout": _WHOLE_SECONDS,
            "wait_timeout": Number(0, DAY * 1_000),  # milliseconds
            "max_lifetime_session": _WHOLE_SECONDS,
        },
        (True, False),
    ),
}
# An engine that is not known here has what nearly all have.
_ANY: AllowList = {"connect_timeout": _WHOLE_SECONDS, "timeout": _SECONDS}

POSTGRESQL, MYSQL, SQLITE, ORACLE, OTHER = "postgresql", "mysql", "sqlite", "oracle", ""
_FAMILIES = {
    "postgresql": POSTGRESQL,
    "postgresql_psycopg2": POSTGRESQL,
    "postgis": POSTGRESQL,
    "mysql": MYSQL,
    "sqlite3": SQLITE,
    "spatialite": SQLITE,
    "oracle": ORACLE,
}
_OPTIONS = {POSTGRESQL: _POSTGRESQL, MYSQL: _MYSQL, SQLITE: _SQLITE, ORACLE: _ORACLE, OTHER: _ANY}


def family(engine: object) -> str:
    """Which database an ``ENGINE`` is for, by the last part of its path as packages name theirs."""
    return _FAMILIES.get(engine.rpartition(".")[2], OTHER) if isinstance(engine, str) else OTHER


def options_of(engine: object) -> AllowList:
    """The keys that a record may have in ``OPTIONS`` for an ``ENGINE``."""
    return _OPTIONS[family(engine)]


# What a record may say of any database, OPTIONS and TEST apart. NAME, HOST and USER have more rules in `validation`.
SETTINGS: AllowList = {
    "ENGINE": Text("the path of an engine", r"[\w.]+", 200),
    "NAME": Text("a name", most=1_000),
    "URL": Text("a URL", most=4_000),
    "USER": Text("a name", most=255),
    "PASSWORD": Text("text", most=4_000),
    "PASS": Text("text", most=4_000),
    "HOST": Text("a host name or a socket folder", most=1_000),
    "CONN_MAX_AGE": Number(0, 10 * 365 * DAY, fraction=True, none=True),
    "CONN_HEALTH_CHECKS": Flag(),
    "ATOMIC_REQUESTS": Flag(),
    "AUTOCOMMIT": Flag(),
    "DISABLE_SERVER_SIDE_CURSORS": Flag(),
    "TIME_ZONE": _Zone(),
}
