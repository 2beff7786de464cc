from django.core.validators import MaxValueValidator
from django.db import models

from hospitals.models import Hospital


class Patient(models.Model):
    name = models.CharField(max_length=120)
    age = models.PositiveSmallIntegerField(null=True, blank=True, validators=[MaxValueValidator(130)])
    hospital = models.ForeignKey(Hospital, models.PROTECT, null=True, blank=True, related_name="patients")
    added_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-added_at", "-pk"]

    def __str__(self) -> str:
        return self.name
