"""Responses that are produced after their view has returned: each part of them is the tenant's work."""

import io
import warnings

import pytest
from django.core.handlers.wsgi import WSGIHandler
from django.db import connection
from django.http import FileResponse, HttpResponse, StreamingHttpResponse
from django.test import Client, RequestFactory, override_settings
from django.urls import path

from tenant_router import context
from tenant_router.middleware import TenantContextMiddleware
from tests import asgi_client

HERE = "tests.integration.test_streaming"
LOG: list = []


def name():
    """What a conventional application sees of its tenant: where its connection leads."""
    return connection.alias.encode()


# --- views ---


def sync_lines(request):
    def lines():
        try:
            for _ in range(3):
                yield name() + b"\n"
        finally:
            LOG.append(("closed", name()))

    return StreamingHttpResponse(lines())


def async_lines(request):
    async def lines():
        for _ in range(3):
            yield name() + b"\n"

    return StreamingHttpResponse(lines())


def failing_lines(request):
    def lines():
        yield name() + b"\n"
        raise ValueError("in the middle")

    return StreamingHttpResponse(lines())


class Rows:
    """An iterable with a ``close()`` of its own, as cursors are."""

    def __iter__(self):
        return iter([name()])

    def close(self):
        LOG.append(("rows closed", name()))


def rows(request):
    return StreamingHttpResponse(Rows())


class BlobFile(io.RawIOBase):
    """A file whose content lies in the tenant's database, as storages for blobs have it."""

    def readable(self):
        return True

    def readinto(self, buffer):
        if LOG and LOG[-1] == "read":
            return 0
        LOG.append("read")
        found = name()
        buffer[: len(found)] = found
        return len(found)

    def close(self):
        if not self.closed:
            LOG.append(("blob closed", name()))
        super().close()


def blob(request):
    return FileResponse(BlobFile())


def real_file(request):
    return FileResponse(open(__file__, "rb"))


def plain(request):
    return HttpResponse(name())


urlpatterns = [
    path("sync/", sync_lines),
    path("async/", async_lines),
    path("failing/", failing_lines),
    path("rows/", rows),
    path("blob/", blob),
    path("file/", real_file),
    path("plain/", plain),
]


@pytest.fixture
def pair(tenants):
    LOG.clear()
    for tenant_id in ("a.test", "b.test"):
        tenants.arrived(tenant_id, tenants.put(tenant_id))
    with override_settings(ROOT_URLCONF=HERE):
        yield tenants


def _wsgi(url, host="a.test", **environ):
    """Run the request as a server would, and return what the handler returned."""
    environ = {**RequestFactory()._base_environ(), "PATH_INFO": url, "HTTP_HOST": host, **environ}
    return WSGIHandler()(environ, lambda status, headers: None)


# --- both handlers, both kinds of iterators ---


@pytest.mark.parametrize("url", ["/sync/", "/rows/", "/blob/"])
def test_a_synchronous_stream_is_its_tenants_under_wsgi(pair, url):
    response = _wsgi(url, "b.test")
    assert context.stack.get() == ()
    body = b"".join(response)
    assert body.replace(b"b.test_default", b"").strip() == b""
    assert b"b.test_default" in body
    response.close()
    assert context.stack.get() == ()


def test_an_asynchronous_stream_is_its_tenants_under_asgi(pair):
    answer = asgi_client.get("/async/", {"host": "b.test"})
    assert answer.content == b"b.test_default\n" * 3
    assert len(answer.chunks) > 3


def test_a_synchronous_stream_is_its_tenants_under_asgi(pair):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "StreamingHttpResponse must consume synchronous")
        answer = asgi_client.get("/sync/", {"host": "b.test"})
    assert answer.content == b"b.test_default\n" * 3
    assert LOG == [("closed", b"b.test_default")]


def test_an_asynchronous_stream_is_its_tenants_under_wsgi(pair):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "StreamingHttpResponse must consume asynchronous")
        response = _wsgi("/async/", "b.test")
        assert b"".join(response) == b"b.test_default\n" * 3
    response.close()


def test_two_streams_in_one_thread_take_turns(pair):
    responses = [_wsgi("/sync/", host) for host in ("a.test", "b.test", "a.test")]
    streams = [iter(response) for response in responses]
    for _ in range(3):
        assert [next(stream) for stream in streams] == [f"{t}.test_default\n".encode() for t in "aba"]
        assert context.stack.get() == ()
    for response in responses:
        response.close()


# --- how they end ---


def test_a_stream_that_is_cut_off_is_closed_as_its_tenant(pair):
    response = _wsgi("/sync/", "b.test")
    assert next(iter(response)) == b"b.test_default\n"
    response.close()
    assert LOG == [("closed", b"b.test_default")]


def test_the_close_of_an_iterable_runs_as_its_tenant(pair):
    response = _wsgi("/rows/", "b.test")
    assert b"".join(response) == b"b.test_default"
    response.close()
    assert LOG == [("rows closed", b"b.test_default")]


def test_a_stream_that_fails_leaves_no_tenant_behind(pair):
    response = _wsgi("/failing/")
    stream = iter(response)
    assert next(stream) == b"a.test_default\n"
    with pytest.raises(ValueError, match="in the middle"):
        next(stream)
    assert context.stack.get() == ()
    response.close()


def test_closing_twice_is_closing_once(pair):
    response = _wsgi("/rows/")
    response.close()
    response.close()
    assert len(LOG) == 1


def test_a_stream_that_began_before_a_change_ends_on_the_old_database(pair):
    seen = []

    def view(request):
        def lines():
            for _ in range(2):
                seen.append(str(connection.settings_dict["NAME"]))
                yield b"x"

        return StreamingHttpResponse(lines())

    request = RequestFactory().get("/", headers={"host": "a.test"})
    response = TenantContextMiddleware(view)(request)
    stream = iter(response)
    next(stream)
    pair.arrived("a.test", pair.put("a.test", pair.record("moved")))
    next(stream)
    response.close()
    assert len(seen) == 2
    assert seen[0] == seen[1]
    assert seen[0].endswith("a.test.db")


# --- files ---


def test_a_real_file_keeps_the_servers_fast_path(pair):
    wrapped = []

    def file_wrapper(file, block_size):
        wrapped.append(file)
        return iter(lambda: file.read(block_size), b"")

    body = b"".join(_wsgi("/file/", **{"wsgi.file_wrapper": file_wrapper}))
    with open(__file__, "rb") as file:
        assert body == file.read()
    assert wrapped[0].name == __file__
    wrapped[0].close()
    assert wrapped[0].closed


def test_a_file_out_of_the_database_is_read_and_closed_as_its_tenant(pair):
    """A server's file wrapper would read it when nothing is bound."""

    def file_wrapper(file, block_size):
        return iter(lambda: file.read(block_size), b"")

    response = _wsgi("/blob/", "b.test", **{"wsgi.file_wrapper": file_wrapper})
    assert b"".join(response) == b"b.test_default"
    response.close()
    assert LOG == ["read", ("blob closed", b"b.test_default")]


def test_a_file_is_served_whole_in_the_ordinary_way(pair):
    response = Client().get("/file/", headers={"host": "a.test"})
    with open(__file__, "rb") as file:
        assert b"".join(response.streaming_content) == file.read()
    response.close()


def test_an_ordinary_response_is_not_made_a_stream(pair):
    response = _wsgi("/plain/")
    assert not response.streaming
    assert response.content == b"a.test_default"
    response.close()
