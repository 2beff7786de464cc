"""What the demo does for a tenant: database, configuration, migrations, hospitals."""

from __future__ import annotations

import json
import re
import sys
import tempfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from demo_stack.databases import create_databases, on_sockets
from demo_stack.errors import DemoError
from demo_stack.processes import Command, Processes
from demo_stack.state import ROOT, SITE

SERVICE = "mt_site"
DOMAIN = ".test.com"
DATASETS = {"tenant-1.test.com": "river", "tenant-2.test.com": "mountain"}
OTHER_DATASETS = ("coast", "orchard")
LONGEST_DATABASE = 63


def configured_databases() -> dict[str, str]:
    """Tenant id -> database name, as ``tenant_config.json`` has them."""
    tenants = shipped({})["tenant_config"]
    return {
        tenant: record[SERVICE]["orm_config"]["django_orm"]["default"]["NAME"] for tenant, record in tenants.items()
    }


def validated(tenant: str) -> str:
    if not re.fullmatch(r"[a-z0-9]([a-z0-9._-]*[a-z0-9])?", tenant) or ".." in tenant or len(tenant) > 253:
        raise DemoError(f"{tenant!r} is no tenant id; use a-z, 0-9, '.', '_' and '-', as in tenant-3.test.com")
    return tenant


def database_of(tenant: str) -> str:
    """``tenant-3.test.com`` -> ``tenant_3``."""
    name = re.sub(r"[^a-z0-9]", "_", tenant.removesuffix(DOMAIN))
    if len(name) > LONGEST_DATABASE:
        raise DemoError(f"a database name ends at {LONGEST_DATABASE} characters: choose a shorter tenant id")
    return name


def url(tenant: str, port: int) -> str:
    host = tenant.removesuffix(DOMAIN) + ".localhost" if tenant.endswith(DOMAIN) else tenant
    return f"http://{host}:{port}/"


def provision_all(processes: Processes, sockets: Path, env: Mapping[str, str]) -> list[str]:
    databases = configured_databases()
    _load(processes, env, "load_tenant_config", shipped(env), [])
    create_databases(on_sockets(sockets), databases.values())
    processes.run({"migrate_all": manage("migrate_all")}, env)
    processes.run({f"seed_demo-{tenant}": seed(tenant) for tenant in databases}, env)
    return list(databases)


def provision(processes: Processes, sockets: Path, env: Mapping[str, str], tenant: str) -> None:
    database = database_of(tenant)
    create_databases(on_sockets(sockets), [database])
    # Migrated first and served then: nobody sees the tenant without its tables.
    _load(processes, env, f"load_tenant_config-{tenant}", of_one(tenant, env), ["--migrate"])
    processes.run({f"seed_demo-{tenant}": seed(tenant)}, env)


def _load(processes: Processes, env: Mapping[str, str], name: str, config: dict[str, Any], options: list[str]) -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as file:
        json.dump(config, file)
        file.flush()
        processes.run({name: manage("load_tenant_config", *options, "-f", file.name)}, env)


def _documents(tenant: str, env: Mapping[str, str]) -> dict[str, Any]:
    """The tenant's part of the services that the site was started with."""
    found: dict[str, Any] = {}
    if "MONGO_URL" in env:
        address = f"{env['MONGO_URL'].rstrip('/')}/{database_of(tenant)}"
        found["pymodm_orm"] = {"default": {"CONN_URL": address}}
    if "ELASTICSEARCH_URL" in env:
        found["es_orm"] = {"default": {}}
    return found


def manage(*arguments: str) -> Command:
    return [sys.executable, SITE / "manage.py", *arguments]


def seed(tenant: str) -> Command:
    """The command that fills an empty tenant."""
    other = OTHER_DATASETS[zlib.crc32(tenant.encode()) % len(OTHER_DATASETS)]
    return manage("seed_demo", "--dataset", DATASETS.get(tenant, other), "--tenant-id", tenant)


def shipped(env: Mapping[str, str]) -> dict[str, Any]:
    """``tenant_config.json``, and for each tenant what the services of ``env`` need to know."""
    config: dict[str, Any] = json.loads((ROOT / "tenant_config.json").read_text("utf-8"))
    for tenant, services in config["tenant_config"].items():
        services[SERVICE]["orm_config"] |= _documents(tenant, env)
    return config


def of_one(tenant: str, env: Mapping[str, str]) -> dict[str, Any]:
    """A file for this tenant alone; the mapping, which all tenants share, stays as it is."""
    databases = {"django_orm": {"default": {"NAME": database_of(tenant)}}, **_documents(tenant, env)}
    record = {SERVICE: {"orm_config": databases}}
    return {"mapping_metadata": shipped(env)["mapping_metadata"], "tenant_config": {tenant: record}}
