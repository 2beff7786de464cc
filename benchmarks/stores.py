"""What reaching a tenant's collection or client costs more than reaching the one of an untenanted project.

    MONGO_URL=... ELASTICSEARCH_URL=... python benchmarks/stores.py

A server is connected to and nothing is asked of it: the drivers connect in the background.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import timeit
from collections.abc import Callable
from pathlib import Path
from typing import Any

LIBRARIES = ("pymodm_orm", "mongoengine_orm", "es_orm")
ROUNDS, CALLS = 30, 5_000


def main() -> None:
    if len(sys.argv) == 3:
        print(json.dumps(_measure(sys.argv[1], sys.argv[2] == "ours")))
        return
    for orm_id in LIBRARIES:
        both = [_in_process(orm_id, kind) for kind in ("ours", "plain")]
        for what in both[0]:
            ours, plain = (found[what] for found in both)
            print(f"{orm_id:16} {what:12} {ours:6.2f} us, plain {plain:6.2f} us, {ours - plain:+.2f} us")


def _in_process(orm_id: str, kind: str) -> dict[str, float]:
    command = [sys.executable, str(Path(__file__)), orm_id, kind]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


def _measure(orm_id: str, ours: bool) -> dict[str, float]:
    calls = _with_tenant(orm_id) if ours else _plain(orm_id)
    with calls.pop("bound", _nothing)():
        return {
            what: min(timeit.repeat(call, number=CALLS, repeat=ROUNDS)) / CALLS * 1e6 for what, call in calls.items()
        }


def _with_tenant(orm_id: str) -> dict[str, Any]:
    import django
    from django.conf import settings

    mongo = {"default": {"CONN_URL": f"{os.environ['MONGO_URL']}/bench"}}
    settings.configure(
        INSTALLED_APPS=["tenant_router"],
        TENANT_ROUTER_SERVICE_NAME="bench",
        TENANT_ROUTER_CONFIG_STORE_SETTINGS={"BACKEND": "tenant_router.config_store.backends.memory.MemoryStore"},
        TENANT_ROUTER_ORM_SETTINGS={orm_id: {"SETTINGS_KEY": "STORES"}},
        STORES=mongo if orm_id != "es_orm" else {"default": {"HOSTS": [os.environ["ELASTICSEARCH_URL"]]}},
    )
    django.setup()
    from tenants import register_here

    from tenant_router.context_decorators import tenant_context_bind

    config = {} if orm_id == "es_orm" else {"CONN_URL": f"{os.environ['MONGO_URL']}/bench_a"}
    register_here({"a.test": {"orm_config": {orm_id: {"default": config}}}})
    return {"bound": lambda: tenant_context_bind("a.test"), **_calls(orm_id, ours=True)}


def _plain(orm_id: str) -> dict[str, Any]:
    address = f"{os.environ['MONGO_URL']}/bench"
    if orm_id == "pymodm_orm":
        from pymodm import connect

        connect(address)
    elif orm_id == "mongoengine_orm":
        from mongoengine import connect as connect_engine

        connect_engine(host=address)
    return _calls(orm_id, ours=False)


def _calls(orm_id: str, *, ours: bool) -> dict[str, Callable[[], object]]:
    if orm_id == "pymodm_orm":
        from pymodm import MongoModel, fields

        class Author(MongoModel):
            name = fields.CharField()

        return {"collection": lambda: Author._mongometa.collection}
    if orm_id == "mongoengine_orm":
        from mongoengine import Document, StringField

        class Writer(Document):
            name = StringField()

        return {"collection": Writer._get_collection, "query set": lambda: Writer.objects}
    return {"client": _es_client(ours)}


def _es_client(ours: bool) -> Callable[[], object]:
    if ours:
        from tenant_router.orm_backends.es_orm import get_client

        return get_client
    from elasticsearch import Elasticsearch

    clients = {"default": Elasticsearch(os.environ["ELASTICSEARCH_URL"])}
    return lambda: clients["default"]


class _nothing:
    def __enter__(self) -> None:
        return None

    def __exit__(self, *error: object) -> None:
        return None


if __name__ == "__main__":
    main()
