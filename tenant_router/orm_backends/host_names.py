"""Hosts as settings name them: what is one, and one spelling for each, whatever a record makes of it. No I/O."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Collection, Iterable
from functools import lru_cache

LOCAL = "localhost"
_LOCAL_NAMES = re.compile(r"(?:.*\.)?localhost|localhost[46]?(?:\.localdomain[46]?)?|ip6-(?:localhost|loopback)")
_NAME = re.compile(r"[\w](?:[\w-]{0,62})(?:\.[\w-]{1,63})*\.?")
_NUMBERS = re.compile(r"(?:0x[0-9a-f]+|\d+)(?:\.(?:0x[0-9a-f]+|\d+)){0,3}", re.ASCII)
_PORT = re.compile(r"[0-9]{1,10}")
LONGEST = 253  # characters of a name


@lru_cache(maxsize=4096)
def is_host(text: str) -> bool:
    """Whether ``text`` is a host name or an address, an IPv6 one in brackets."""
    if text.startswith("["):
        return text.endswith("]") and _ip(text[1:-1]) is not None
    if len(text) > LONGEST or _NAME.fullmatch(text) is None:
        return False
    try:
        text.rstrip(".").encode("idna")  # as socket.getaddrinfo() does, or fails to
    except UnicodeError:
        return False
    return True


def port_number(value: object) -> int | None:
    """The port that ``value`` is, as a number or as text of digits; ``None`` if it is none."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        return None
    if isinstance(value, str):
        if _PORT.fullmatch(value) is None:
            return None
        value = int(value)
    return value if 0 < value < 65_536 else None


@lru_cache(maxsize=4096)
def canonical(host: str) -> str:
    """One spelling of a name or an address, and one of all that mean this machine."""
    host = in_ascii(host.strip("[]")).rstrip(".").lower()
    if not host or _LOCAL_NAMES.fullmatch(host):
        return LOCAL
    address = _address(host)
    if address is None:
        return host
    return LOCAL if address.is_loopback or address.is_unspecified else str(address)


@lru_cache(maxsize=4096)
def in_ascii(host: str) -> str:
    """As the ``socket`` module writes a name before it is looked up: that makes other digits and dots ASCII's, too."""
    try:
        return host.encode("idna").decode("ascii")
    except UnicodeError:
        return host


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    found = _ip(host)
    if found is None:
        # getaddrinfo(), which all clients ask, takes 127.1 and 0x7f000001 as well; a name has a letter at its end
        if _NUMBERS.fullmatch(host) is None:
            return None
        try:
            return ipaddress.IPv4Address(socket.inet_aton(host))
        except OSError:
            return None
    return getattr(found, "ipv4_mapped", None) or found


def _ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def joined(clusters: Iterable[Iterable[str]]) -> list[frozenset[str]]:
    """Sets of hosts, those that have one in common as one: they are one cluster."""
    found: list[frozenset[str]] = []
    for each in map(frozenset, clusters):
        apart = [other for other in found if each.isdisjoint(other)]
        found = [*apart, each.union(*(other for other in found if not each.isdisjoint(other)))]
    return found


def all_hosts(hosts: Collection[str], clusters: Iterable[frozenset[str]]) -> list[str]:
    """``hosts``, and those of the ``clusters`` (see :func:`joined`) to which any of them belongs."""
    return sorted(frozenset(hosts).union(*(each for each in clusters if not each.isdisjoint(hosts))))
