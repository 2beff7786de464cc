"""Search over the site's patients, where the site has an Elasticsearch (see the settings)."""

from typing import Any

from django.conf import settings

from patients.models import Patient

INDEX = "patients"
ALIAS = "default"


class SearchError(Exception):
    """The search does not answer."""


def schema() -> list[Any]:
    """What ``migrate_all`` creates for each tenant."""
    from elasticsearch.dsl import Document, Text

    class PatientDocument(Document):
        name = Text()
        hospital = Text()

        class Index:
            name = INDEX

    return [PatientDocument]


def is_on() -> bool:
    return hasattr(settings, "ES_SETTINGS")


def put(patient: Patient) -> None:
    """Have the patient found, by the words that the record has now."""
    hospital = patient.hospital.name if patient.hospital else ""
    document = {"name": patient.name, "hospital": hospital}
    _client().index(index=INDEX, id=str(patient.pk), document=document, refresh=True)


def remove(key: int) -> None:
    """Have a patient found no more."""
    _client().options(ignore_status=404).delete(index=INDEX, id=str(key), refresh=True)


def found(words: str, limit: int) -> list[Patient]:
    """The patients that the words describe, the best first. Raises ``SearchError``."""
    query = {"multi_match": {"query": words, "fields": ["name^2", "hospital"], "type": "bool_prefix"}}
    hits = _search(query, limit)
    rows = Patient.objects.select_related("hospital").in_bulk([int(hit["_id"]) for hit in hits])
    return [rows[int(hit["_id"])] for hit in hits if int(hit["_id"]) in rows]


def _search(query: dict[str, Any], limit: int) -> list[dict[str, Any]]:
    from elasticsearch import ApiError, TransportError

    try:
        answer = _client().search(index=INDEX, query=query, size=limit, source=False)
    except (ApiError, TransportError) as error:
        raise SearchError(str(error)) from error
    hits: list[dict[str, Any]] = answer["hits"]["hits"]
    return hits


def _client() -> Any:
    from elasticsearch.dsl import connections

    return connections.get_connection(ALIAS)
