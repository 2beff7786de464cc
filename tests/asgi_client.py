"""One request through Django's ASGI handler, as a server would send it: Django's own client sends a second Host."""

import asyncio
import json
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from django.core.handlers.asgi import ASGIHandler


@dataclass
class Answer:
    """What came back; ``chunks`` as they were sent."""

    status_code: int = 0
    headers: dict = field(default_factory=dict)
    chunks: list = field(default_factory=list)

    @property
    def content(self):
        return b"".join(self.chunks)

    def __getitem__(self, name):
        return self.headers[name]

    def __contains__(self, name):
        return name in self.headers

    def json(self):
        return json.loads(self.content)


def get(path, headers=None, on_chunk=None):
    """Run one GET in an event loop of its own. ``on_chunk(answer)`` is called at each part of the body."""
    return asyncio.run(exchange(path, headers, on_chunk))


async def exchange(path, headers=None, on_chunk=None):
    url, answer = urlsplit(path), Answer()
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": url.path,
        "query_string": url.query.encode(),
        "root_path": "",
        "server": ("testserver", 80),
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in (headers or {}).items()],
    }
    messages = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive():
        return messages.pop() if messages else await asyncio.Event().wait()

    async def send(message):
        if message["type"] == "http.response.start":
            answer.status_code = message["status"]
            answer.headers = {name.decode().title(): value.decode("latin-1") for name, value in message["headers"]}
        else:
            answer.chunks.append(message.get("body", b""))
            if on_chunk is not None:
                on_chunk(answer)

    await ASGIHandler()(scope, receive, send)
    return answer
