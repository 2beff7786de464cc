"""200 concurrent requests over 20 tenants in one event loop, cancelled ones among them: no answer is another's."""

import asyncio
import contextlib
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.db import connection, connections
from django.http import JsonResponse, StreamingHttpResponse
from django.test import override_settings
from django.urls import path

from tenant_router import context
from tests import asgi_client
from tests.app.models import Note
from tests.fixtures_orm import SQLITE, create_tables
from tests.tenants import collect_garbage

HERE = "tests.integration.test_crowds"
TENANTS, REQUESTS, WORKERS = 20, 200, 8
# Django's ASGI handler leaves the body of a cancelled request to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def _seen():
    return {"text": Note.objects.get(id=1).text, "alias": connection.alias}


def synchronous(request):
    return JsonResponse(_seen())


async def asynchronous(request):
    first = (await Note.objects.aget(id=1)).text
    await asyncio.sleep(random.random() / 50)
    seen = await sync_to_async(_seen)()
    assert first == seen["text"]
    return JsonResponse(seen)


async def inside_out(request):
    """From the loop into a thread and from there back into a loop."""
    return JsonResponse(await sync_to_async(lambda: async_to_sync(_aseen)())())


async def _aseen():
    return {"text": (await Note.objects.aget(id=1)).text, "alias": connection.alias}


async def slow(request):
    await asyncio.sleep(5)
    return JsonResponse(await sync_to_async(_seen)())


async def stream(request):
    async def parts():
        for _ in range(3):
            await asyncio.sleep(random.random() / 100)
            yield (await Note.objects.aget(id=1)).text + "\n"

    return StreamingHttpResponse(parts())


urlpatterns = [
    path("synchronous/", synchronous),
    path("asynchronous/", asynchronous),
    path("inside-out/", inside_out),
    path("stream/", stream),
    path("slow/", slow),
]


@pytest.fixture
def crowd(project):
    """Twenty tenants whose row of the same key says whose it is; under ASGI each request has a thread of its own."""
    databases = {"default": SQLITE, "central": {**SQLITE, "NAME": ":memory:"}}
    tenants = project(databases, reserved={"central"}, MAX_OPEN_CONNECTIONS=2 * REQUESTS)
    for number in range(TENANTS):
        tenant_id = f"t{number}.test"
        tenants.arrived(tenant_id, tenants.put(tenant_id))
        create_tables(tenant_id)
        Note.objects.using(f"{tenant_id}_default").create(id=1, text=tenant_id)
        connections[f"{tenant_id}_default"].close()
    with override_settings(ROOT_URLCONF=HERE):
        yield [f"t{number}.test" for number in range(TENANTS)]
    collect_garbage()


async def _one(tenant_id, url):
    answer = await asgi_client.exchange(url, {"host": tenant_id})
    assert answer.status_code == 200, answer.content
    if url == "/stream/":
        assert answer.content.decode() == f"{tenant_id}\n" * 3
    else:
        assert answer.json() == {"text": tenant_id, "alias": f"{tenant_id}_default"}
    assert context.stack.get() == ()


async def _cancelled(tenant_id, url):
    task = asyncio.create_task(asgi_client.exchange(url, {"host": tenant_id}))
    await asyncio.sleep(random.random() / 10)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert context.stack.get() == ()


async def _everybody(tenant_ids):
    urls = ["/synchronous/", "/asynchronous/", "/inside-out/", "/stream/"]
    ended = []
    for number in range(REQUESTS):
        tenant_id, url = tenant_ids[number % TENANTS], urls[number // TENANTS % len(urls)]
        ended.append(_one(tenant_id, url))
        if number % 5 == 0:
            ended.append(_cancelled(tenant_id, ["/slow/", "/synchronous/", "/stream/"][number // 5 % 3]))
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(WORKERS))
    outcomes = await asyncio.gather(*ended, return_exceptions=True)
    assert context.stack.get() == ()
    everybody = threading.Barrier(WORKERS, timeout=60)
    left = await asyncio.gather(*(loop.run_in_executor(None, _left, everybody) for _ in range(WORKERS)))
    return [outcome for outcome in outcomes if outcome is not None], [one for one in left if one is not None]


def _left(everybody):
    """What is bound in one of the loop's workers, where nothing is bound for this call; each of them is asked once."""
    everybody.wait()
    return context.current()


def test_a_crowd_of_requests_over_twenty_tenants(crowd):
    wrong, left = asyncio.run(_everybody(crowd))
    assert wrong == []
    assert left == []
    assert context.stack.get() == ()


def test_a_cancelled_request_leaves_nothing_for_the_next_one(crowd):
    async def one_after_another():
        for tenant_id in crowd[:10]:
            await _cancelled(tenant_id, "/slow/")
            await _one(crowd[-1], "/asynchronous/")

    asyncio.run(one_after_another())
