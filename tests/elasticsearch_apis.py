"""Every API of the installed Elasticsearch client, read from its source: methods, paths and parameters."""

from __future__ import annotations

import ast
import inspect
import textwrap
from dataclasses import dataclass, field

from elasticsearch import Elasticsearch
from elasticsearch._sync.client.utils import NamespacedClient

# Path and keyword parameters that name an index, or something that is kept beside indices.
NAMES = {"index", "name", "alias", "target", "target_index", "new_index", "source", "dest"}


@dataclass
class Api:
    """One method of the client: ``indices.get_alias`` and the like."""

    name: str
    parameters: list[str] = field(default_factory=list)
    required: list[str] = field(default_factory=list)
    templates: set[str] = field(default_factory=set)
    query: set[str] = field(default_factory=set)

    @property
    def names(self):
        """Its parameters that are names."""
        return [name for name in self.parameters if name in NAMES]

    def of(self, client):
        """Its method of ``client``."""
        found = client
        for part in self.name.split("."):
            found = getattr(found, part)
        return found


def all_apis():
    """All of them, by name."""
    client = Elasticsearch("http://127.0.0.1:1")
    spaces = {"": client, **{f"{n}.": s for n, s in vars(client).items() if isinstance(s, NamespacedClient)}}
    found = {}
    for space, owner in spaces.items():
        for name, method in inspect.getmembers(owner, inspect.ismethod):
            api = _read(space + name, method)
            if api is not None:
                found[api.name] = api
    client.close()
    return found


def _read(name, method):
    if name.rpartition(".")[2].startswith("_") or name in ("close", "options", "perform_request"):
        return None
    tree = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(method))))
    if "perform_request" not in ast.unparse(tree):
        return None
    parameters = list(inspect.signature(inspect.unwrap(method)).parameters.values())[1:]
    api = Api(name, [p.name for p in parameters])
    api.required = [p.name for p in parameters if p.default is p.empty]
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            target = ast.unparse(node.targets[0])
            if target == "__path":
                api.templates.add(_template(node.value))
            elif target.startswith("__query["):
                api.query.add(node.targets[0].slice.value)
    return api


def _template(path):
    if isinstance(path, ast.Constant):
        return path.value
    return "".join(p.value if isinstance(p, ast.Constant) else f"{{{p.value.slice.value}}}" for p in path.values)
