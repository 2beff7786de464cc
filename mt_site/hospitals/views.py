from django.http import HttpRequest, JsonResponse
from django.views.decorators.http import require_safe

from hospitals.listing import hospitals


@require_safe
def hospital_list(request: HttpRequest) -> JsonResponse:
    return JsonResponse(hospitals(), safe=False)
