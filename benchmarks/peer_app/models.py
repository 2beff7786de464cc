"""The one model of the benchmark, and what the measured package asks an application to define beside it."""

from django.conf import settings
from django.db import models

SYSTEM = settings.BENCH_SYSTEM


class _NoteBase(models.Model):
    text = models.TextField()

    class Meta:
        abstract = True


if SYSTEM == "django-tenants":
    from django_tenants.models import DomainMixin, TenantMixin

    class Client(TenantMixin):
        auto_create_schema = False

    class Domain(DomainMixin):
        pass

elif SYSTEM == "django-pgschemas":
    from django_pgschemas.models import TenantModel
    from django_pgschemas.routing.models import DomainModel

    class Client(TenantModel):
        auto_create_schema = False

    class Domain(DomainModel):
        pass

elif SYSTEM == "django-multitenant":
    from django_multitenant.fields import TenantForeignKey
    from django_multitenant.models import TenantModel

    class Client(TenantModel):
        domain = models.CharField(max_length=100, unique=True)

        class TenantMeta:
            tenant_field_name = "id"

    class Note(TenantModel):
        client = TenantForeignKey(Client, on_delete=models.CASCADE)
        text = models.TextField()

        class TenantMeta:
            tenant_field_name = "client_id"


if SYSTEM != "django-multitenant":

    class Note(_NoteBase):
        pass
