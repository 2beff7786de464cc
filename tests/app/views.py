"""Views as one writes them for one tenant: nothing here knows of tenants."""

import json
import time

from asgiref.sync import sync_to_async
from django.core.cache import cache
from django.db import connection, transaction
from django.http import FileResponse, HttpResponse, JsonResponse, StreamingHttpResponse
from django.views import View
from django.views.decorators.cache import cache_page
from django.views.decorators.csrf import csrf_exempt

from tests.app.models import Counter, Note


def texts():
    return list(Note.objects.order_by("id").values_list("text", flat=True))


def whoami(request):
    return JsonResponse({"database": str(connection.settings_dict["NAME"]), "alias": connection.alias})


@csrf_exempt
def notes(request):
    if request.method == "POST":
        Note.objects.create(text=json.loads(request.body)["text"])
    return JsonResponse({"notes": texts()})


def notes_raw(request):
    with connection.cursor() as cursor:
        cursor.execute("SELECT text FROM app_note ORDER BY id")
        return JsonResponse({"notes": [row[0] for row in cursor.fetchall()]})


@transaction.non_atomic_requests
async def notes_async(request):
    found = [note.text async for note in Note.objects.order_by("id")]
    again = await sync_to_async(texts)()
    return JsonResponse({"notes": found, "again": again})


def notes_stream(request):
    return StreamingHttpResponse(f"{note.text}\n" for note in Note.objects.order_by("id").iterator(chunk_size=2))


@transaction.non_atomic_requests
async def notes_stream_async(request):
    async def lines():
        async for note in Note.objects.order_by("id"):
            yield f"{note.text}\n"

    return StreamingHttpResponse(lines())


@cache_page(60)
def notes_cached(request):
    return JsonResponse({"notes": texts(), "at": time.time()})


@csrf_exempt
def notes_rollback(request):
    try:
        with transaction.atomic():
            Note.objects.create(text="never")
            raise ValueError
    except ValueError:
        pass
    return JsonResponse({"notes": texts()})


@csrf_exempt
def notes_later(request):
    """Write a second note from ``on_commit``, and a third one by a task sent from there."""
    from tests.app.tasks import add_note

    name = json.loads(request.body)["text"]

    def committed():
        Note.objects.create(text=f"{name} committed")
        add_note.delay(f"{name} by task")

    with transaction.atomic():
        Note.objects.create(text=name)
        transaction.on_commit(committed)
    return JsonResponse({"notes": texts()}, status=202)


@csrf_exempt
def counter(request):
    """Add one under a row lock; no increment may get lost."""
    with transaction.atomic():
        row = Counter.objects.select_for_update().get_or_create(id=1)[0]
        row.value += 1
        row.save()
    return JsonResponse({"value": row.value})


def cached_value(request):
    if "set" in request.GET:
        cache.set("value", request.GET["set"])
    return JsonResponse({"value": cache.get("value")})


def session_value(request):
    request.session["visits"] = request.session.get("visits", 0) + 1
    return JsonResponse({"visits": request.session["visits"]})


def boom(request):
    raise ValueError("boom")


def slow(request):
    first = str(connection.settings_dict["NAME"])
    before = texts()
    time.sleep(float(request.GET.get("seconds", "0.5")))
    return JsonResponse({"database": first, "before": before, "after": texts()})


def own_file(request):
    return FileResponse(open(__file__, "rb"))


def unbound(request):
    try:
        Note.objects.count()
    except Exception as error:
        return HttpResponse(type(error).__name__)
    return HttpResponse("bound")


class Unbound(View):
    def get(self, request, number):
        return unbound(request)
