"""Tasks as one writes them for one tenant, of a project that keeps documents in Elasticsearch."""

from celery import shared_task

from tenant_router.orm_backends.es_orm import get_client


@shared_task
def index_and_list(text):
    client = get_client()
    client.index(index="notes", document={"text": text}, refresh=True)
    hits = client.search(index="*", query={"match_all": {}}, size=100)["hits"]["hits"]
    return sorted({hit["_source"]["text"] for hit in hits})
