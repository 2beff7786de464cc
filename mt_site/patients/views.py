from collections.abc import Iterable

from django.http import HttpRequest, JsonResponse
from django.views.decorators.http import require_http_methods
from kombu.exceptions import OperationalError

from patients import search
from patients.forms import PatientForm
from patients.models import Patient
from patients.search import SearchError
from patients.tasks import add_patient

SHOWN = 200


@require_http_methods(["GET", "HEAD", "POST"])
def patients(request: HttpRequest) -> JsonResponse:
    return _add(request) if request.method == "POST" else _list(request.GET.get("q", "").strip())


def _list(words: str) -> JsonResponse:
    try:
        rows = search.found(words, SHOWN) if words and search.is_on() else _newest()
    except SearchError:
        return JsonResponse({"error": "The search does not answer. Please try again."}, status=503)
    return JsonResponse([_as_json(row) for row in rows], safe=False)


def _newest() -> Iterable[Patient]:
    return Patient.objects.select_related("hospital")[:SHOWN]


def _as_json(patient: Patient) -> dict[str, object]:
    return {
        "id": patient.pk,
        "name": patient.name,
        "age": patient.age,
        "hospital": patient.hospital and patient.hospital.name,
        "added_at": patient.added_at.isoformat(),
    }


def _add(request: HttpRequest) -> JsonResponse:
    try:
        form = PatientForm.from_json(request.body)
    except ValueError as error:
        return JsonResponse({"error": str(error)}, status=400)
    if not form.is_valid():
        return JsonResponse({"error": "Please correct the form.", "fields": form.errors}, status=400)
    return _queue(request, form)


def _queue(request: HttpRequest, form: PatientForm) -> JsonResponse:
    try:
        add_patient.delay(**form.task_arguments())
    except OperationalError:
        return JsonResponse({"error": "The task queue does not answer. Please try again."}, status=503)
    added = request.session["patients_added"] = request.session.get("patients_added", 0) + 1
    return JsonResponse({"name": form.cleaned_data["name"], "patients_added": added}, status=202)
