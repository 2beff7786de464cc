"""Binds the tenant for what runs after the middleware has returned a response: streamed chunks and ``close()``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any, cast

from django.http import FileResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase

from tenant_router import context as _context
from tenant_router.context import Stack
from tenant_router.generators import Steps, bound_async_steps, bound_steps


def bind_streaming(response: StreamingHttpResponse, mine: Stack) -> None:
    """Have each chunk made with ``mine`` bound, within the request's unit of work."""
    if isinstance(response, FileResponse) and _is_real_file(response.file_to_stream):
        return  # wrapping it would take wsgi.file_wrapper away, and a real file reads no tenant's data
    if response.is_async:
        chunks = cast("AsyncIterator[bytes]", response.streaming_content)
        response.streaming_content = bound_async_steps(Steps(mine), _async_chunks(chunks))
    else:
        response.streaming_content = bound_steps(
            Steps(mine), _chunks(cast("Iterator[bytes]", response.streaming_content))
        )


def _chunks(content: Iterator[bytes]) -> Any:
    yield from content


async def _async_chunks(content: AsyncIterator[bytes]) -> Any:
    async for chunk in content:
        yield chunk


def _is_real_file(file: Any) -> bool:
    try:
        file.fileno()
    except (AttributeError, OSError, ValueError):
        return False
    return True


def bind_closing(response: HttpResponseBase, mine: Stack) -> None:
    """Have all of ``close()`` run bound: resource closers, a subclass's own, receivers of ``request_finished``.

    The request's unit of work ends after it.
    """
    original = response.close

    def close() -> None:
        response.__dict__.pop("close", None)  # it refers to the response, which must not wait for the collector
        before = _context.stack.get()
        _context.stack.set(mine)  # as ``Steps``, without what a context manager costs each request
        try:
            original()
        finally:
            _context.stack.set(before)
            mine[0].end()

    response.close = close  # type: ignore[method-assign]
