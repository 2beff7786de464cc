import logging

from celery import shared_task

from patients.models import Patient

logger = logging.getLogger(__name__)


@shared_task
def count_patients() -> int:
    """The hourly census of each site."""
    count = Patient.objects.count()
    logger.info("census: %s patients", count)
    return count


@shared_task
def add_patient(name: str, age: int | None = None, hospital_id: int | None = None) -> int:
    patient = Patient.objects.create(name=name, age=age, hospital_id=hospital_id)
    logger.info("patient %s added", patient.pk)
    return patient.pk
