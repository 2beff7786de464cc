"""``elasticsearch.dsl``: its connections of the template aliases are the bound tenant's.

Documents and searches ask ``connections.get_connection(alias)`` at each use, which looks into the
dictionary ``_conns`` first (elasticsearch/dsl/connections.py). That dictionary is replaced.
Before client 8.18 the package was ``elasticsearch_dsl``, alike in this.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib import import_module
from typing import Any

from elasticsearch.serializer import JSONSerializer

_PACKAGES = ("elasticsearch.dsl", "elasticsearch_dsl")


class Connections(dict[str, Any]):
    """Connections by alias; those of the templates cannot be replaced, by whatever an application still configures."""

    def __init__(self, own: Mapping[str, Any], tenants: Mapping[str, Any], central: Mapping[str, Any]) -> None:
        super().__init__(own)
        self.tenants, self.central = tenants, central

    def __getitem__(self, alias: str) -> Any:
        found = self.tenants.get(alias)
        return super().__getitem__(alias) if found is None else found

    def __missing__(self, alias: str) -> Any:
        return self.central[alias]

    def confined(self, conn: Any) -> Any:
        """What is given out for ``conn``: the tenants' client, if it was made for one of their aliases."""
        return next((found for alias, found in self.tenants.items() if self.get(alias) is conn), conn)


def install(module: str, tenants: Mapping[str, Any], central: Mapping[str, Any]) -> None:
    """Give the template aliases ``tenants``' clients, and the reserved ones, unless the project does, ``central``'s.

    ``module``: "connections" or "async_connections", of whichever of the packages is installed.
    """
    for found in _modules(module):
        conns = found.connections._conns
        found.connections._conns = made = Connections(dict.copy(conns), tenants, central)
        # create_connection() gives out what this returns, also where somebody has imported that function before.
        with_user_agent = type(found.connections)._with_user_agent.__get__(found.connections)
        found.connections._with_user_agent = partial(_given_out, with_user_agent, made)


def _given_out(with_user_agent: Callable[[Any], Any], conns: Connections, conn: Any) -> Any:
    found = conns.confined(conn)
    return with_user_agent(conn) if found is conn else found


def uninstall() -> None:
    """Undo :func:`install`."""
    for module in (*_modules("connections"), *_modules("async_connections")):
        if isinstance(module.connections._conns, Connections):
            module.connections._conns = dict(module.connections._conns)
            del module.connections._with_user_agent


def packages() -> Iterator[Any]:
    """Those of the two that are installed."""
    return _imported(*_PACKAGES)


def _modules(name: str) -> Iterator[Any]:
    return _imported(*(f"{package}.{name}" for package in _PACKAGES))


def _imported(*names: str) -> Iterator[Any]:
    for name in names:
        try:
            yield import_module(name)
        except ImportError:
            continue


def _serializer() -> JSONSerializer:
    """The package's own, which also knows its lists and objects; a superset of the client's."""
    found: Callable[[], JSONSerializer] | None = next((module.serializer for module in _modules("serializer")), None)
    return found if isinstance(found, JSONSerializer) else JSONSerializer()


serializer = _serializer()
