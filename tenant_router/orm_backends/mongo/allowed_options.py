"""What a tenant's record may say of a MongoDB database: the allow-lists.

A record is data. What names a local file, a socket, a class or a function, what weakens TLS, what takes
credentials from this machine, and what has no bound comes from the template in the settings, or is allowed
by name in ``OPTIONS["ALLOW_OPTIONS"]`` of the ORM. The names are those of ``pymongo.MongoClient``
(pymongo/common.py: VALIDATORS), in which upper and lower case are the same.
"""

from __future__ import annotations

from typing import Any

from tenant_router.allow_lists import AllowList, Choice, Flag, Number, Text, nearest

MAX_HOSTS = 50  # members that a replica set may have; PyMongo watches each with a thread
MAX_POOL = 100  # connections to each host: PyMongo's default
DAY = 86_400_000  # milliseconds
MINUTE = 60_000
_NAME = Text("a name", r"[\w.$-]+", 63)


class _Tags:
    """Sets of tags in the order in which they are tried, such as ``["dc:ny,rack:1", ""]``."""

    _each = Text("a set of tags", r"(?:[\w.-]+:[\w.-]+(?:,[\w.-]+:[\w.-]+)*)?", 200)

    def fault(self, value: Any) -> str | None:
        """See ``allow_lists.Kind``."""
        if not isinstance(value, list | tuple) or not 0 < len(value) <= 10:
            return "is no list of at most 10 sets of tags"
        return next((what for what in map(self._each.fault, value) if what), None)

    def parse(self, text: str) -> Any:
        """See ``allow_lists.Kind``."""
        return [text]


class _Acknowledged:
    """A number of members, or the name of a mode, such as ``"majority"``."""

    def fault(self, value: Any) -> str | None:
        """See ``allow_lists.Kind``."""
        return _NAME.fault(value) if isinstance(value, str) else Number(0, MAX_HOSTS).fault(value)

    def parse(self, text: str) -> Any:
        """See ``allow_lists.Kind``."""
        return int(text) if text.isascii() and text.isdigit() and len(text) < 3 else text


# MONGODB-AWS and GSSAPI take this machine's own credentials, PLAIN sends the password as it is.
_MECHANISM = Choice("DEFAULT", "SCRAM-SHA-1", "SCRAM-SHA-256", "MONGODB-X509")
_OPTIONS: AllowList = {
    "appName": Text("text", r"[\x20-\x7e]*", 128),
    "authMechanism": _MECHANISM,
    "authSource": Text("a name", r"\$external|[\w-]+", 63),
    "compressors": Text("a list of snappy, zlib and zstd", r"(?:snappy|zlib|zstd)(?:,(?:snappy|zlib|zstd)){0,2}", 20),
    "connectTimeoutMS": Number(1, MINUTE),
    "directConnection": Flag(),
    "heartbeatFrequencyMS": Number(500, DAY),
    "journal": Flag(),
    "localThresholdMS": Number(0, MINUTE),
    "maxIdleTimeMS": Number(1, DAY),
    "maxPoolSize": Number(1, MAX_POOL),
    "maxStalenessSeconds": Number(90, 86_400),
    "minPoolSize": Number(0, MAX_POOL),
    "readConcernLevel": Choice("local", "available", "majority", "linearizable", "snapshot"),
    "readPreference": Choice("primary", "primaryPreferred", "secondary", "secondaryPreferred", "nearest"),
    "readPreferenceTags": _Tags(),
    "replicaSet": _NAME,
    "retryReads": Flag(),
    "retryWrites": Flag(),
    "serverSelectionTimeoutMS": Number(1, MINUTE),
    "socketTimeoutMS": Number(1, DAY),
    "tls": Flag(),
    "tz_aware": Flag(),
    "uuidRepresentation": Choice("standard", "unspecified", "pythonLegacy", "javaLegacy", "csharpLegacy"),
    "w": _Acknowledged(),
    "waitQueueTimeoutMS": Number(1, MINUTE),
    "wTimeoutMS": Number(0, DAY),
    "zlibCompressionLevel": Number(-1, 9),
}
ALIASES = {"ssl": "tls", "j": "journal", "wtimeout": "wtimeoutms"}  # of PyMongo's own; they mean the same
_BY_NAME: AllowList = {name.lower(): kind for name, kind in _OPTIONS.items()}


def plain_name(option: object) -> str:
    """One spelling of an option's name."""
    name = str(option).lower()
    return ALIASES.get(name, name)


def option_fault(option: object, value: Any) -> str | None:
    """Why a record may not have ``option``, or not with this value."""
    kind = _BY_NAME.get(plain_name(option))
    if kind is not None:
        return kind.fault(value)
    close = nearest(str(option).lower(), _BY_NAME)
    meant = next((f": did you mean {name!r}?" for name in _OPTIONS if name.lower() == close), "")
    return f"is not allowed in a record{meant}"


def parsed(option: str, text: str) -> Any:
    """The value of a parameter of a URL."""
    kind = _BY_NAME.get(plain_name(option))
    return text if kind is None else kind.parse(text)
