from django.db import connection
from django.http import HttpResponse, JsonResponse, StreamingHttpResponse
from django.views.decorators.cache import cache_page
from django.views.decorators.csrf import csrf_exempt
from shop.models import Note, Product


@csrf_exempt
def products(request):
    if request.method == "POST":
        Product.objects.create(name=request.POST["name"])
    return JsonResponse({"products": [product.name for product in Product.objects.order_by("id")]})


async def products_async(request):
    return JsonResponse({"products": [product.name async for product in Product.objects.order_by("id")]})


def count(request):
    request.session["count"] = request.session.get("count", 0) + 1
    return HttpResponse(f"{request.session['count']} {request.user.is_authenticated}")


def notes(request):
    return JsonResponse({"notes": [note.text for note in Note.objects.order_by("id")]})


def host(request):
    return HttpResponse(request.get_host())


def stream(request):
    return StreamingHttpResponse(f"{product.name}\n" for product in Product.objects.order_by("id").iterator())


@cache_page(60)
def cached(request):
    return HttpResponse(str(Product.objects.count()))


def alias(request):
    return HttpResponse(connection.alias)
