from datetime import timezone

from django.http import HttpRequest, JsonResponse
from django.views.decorators.http import require_safe
from pymongo import DESCENDING
from pymongo.errors import PyMongoError

from reports.models import Report

SHOWN = 200


@require_safe
def report_list(request: HttpRequest) -> JsonResponse:
    try:
        rows = list(Report.objects.order_by([("written_at", DESCENDING)]).limit(SHOWN))
    except PyMongoError:
        return JsonResponse({"error": "The reports' database does not answer. Please try again."}, status=503)
    return JsonResponse([_as_json(row) for row in rows], safe=False)


def _as_json(report: Report) -> dict[str, object]:
    return {
        "id": str(report._id),
        "title": report.title,
        "ward": report.ward,
        "text": report.text,
        "written_at": report.written_at.replace(tzinfo=timezone.utc).isoformat(),
    }
