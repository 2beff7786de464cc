from django.apps import apps
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.csrf import ensure_csrf_cookie
from django.views.decorators.http import require_safe

from mt_site.hosts import describe
from patients import search


@require_safe
@ensure_csrf_cookie
def home(request: HttpRequest) -> HttpResponse:
    added = request.session.get("patients_added", 0)
    parts = {"reports": apps.is_installed("reports"), "search": search.is_on()}
    return render(request, "home.html", {"site": describe(request), "patients_added": added, **parts})


@require_safe
def healthz(request: HttpRequest) -> HttpResponse:
    return HttpResponse("ok", content_type="text/plain")
