"""The views of ``served_site``."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.http import HttpRequest, JsonResponse
from django.urls import path
from peer_app.models import Note


def _notes(request: HttpRequest) -> Any:
    if not settings.PLAIN:
        return Note.objects
    alias = request.get_host().partition(".")[0]
    return Note.objects.using("default" if alias == "t0" else alias)


def note(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"text": _notes(request).get(pk=1).text})


async def async_note(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"text": (await _notes(request).aget(pk=1)).text})


urlpatterns = [path("", note), path("async/", async_note)]
