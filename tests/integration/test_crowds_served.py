"""200 concurrent requests over 20 tenants on a real uvicorn, visitors among them who leave before the answer."""

import asyncio
import contextlib
import random
import sqlite3
from contextlib import closing

import httpx
import pytest

from tests.processes import Project, Site
from tests.servers import free_port

TENANTS = [f"t{number}.test" for number in range(20)]
PATHS = ["/notes/", "/notes/raw/", "/notes/async/", "/notes/stream/", "/notes/stream/async/", "/notes/cached/"]
REQUESTS, ROUNDS = 200, 3


@pytest.fixture
def project(redis_server, tmp_path, sqlite_file):
    made = Project(redis_server, tmp_path, TESTS_MAX_OPEN=str(2 * REQUESTS))
    for tenant_id in TENANTS:
        database = sqlite_file(tenant_id)
        with closing(sqlite3.connect(database)) as connection:
            connection.execute("INSERT INTO app_note (text) VALUES (?)", (tenant_id,))
            connection.commit()
        made.put(tenant_id, made.record(database))
    return made


def _told(answer):
    """The texts that an answer holds, whatever its form."""
    if not answer.headers["content-type"].startswith("application/json"):
        return set(answer.text.split())
    found = answer.json()
    return {*found["notes"], *found.get("again", ())}


async def _one(client, tenant_id, path):
    answer = await client.get(path, headers={"Host": tenant_id})
    assert answer.status_code == 200, (answer.status_code, answer.text)
    return tenant_id, _told(answer)


async def _leaving(client, tenant_id):
    task = asyncio.create_task(client.get("/slow/?seconds=0.3", headers={"Host": tenant_id}))
    await asyncio.sleep(random.random() / 5)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def _crowd(port):
    unlimited = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=120, limits=unlimited) as client:
        staying = [
            _one(client, TENANTS[number % len(TENANTS)], PATHS[number // len(TENANTS) % len(PATHS)])
            for number in range(REQUESTS)
        ]
        leaving = [_leaving(client, random.choice(TENANTS)) for _ in range(REQUESTS // 5)]
        answers, _ = await asyncio.gather(asyncio.gather(*staying), asyncio.gather(*leaving))
        return answers


def test_a_crowd_on_uvicorn(project):
    port = free_port()
    # A server that closes idle connections sooner than their client may close one that is about to be used.
    command = ["-m", "uvicorn", "tests.asgi:application", "--no-access-log", "--timeout-keep-alive", "60"]
    command += ["--port", str(port)]
    with closing(Site(port)) as site, project.start(*command) as web:
        site.wait_until_up(web)
        for _ in range(ROUNDS):
            answers = asyncio.run(_crowd(port))
            assert len(answers) == REQUESTS
            assert [answer for answer in answers if answer[1] != {answer[0]}] == []
        web.terminate()
        assert "Traceback" not in web.log, web.log[-3000:]
