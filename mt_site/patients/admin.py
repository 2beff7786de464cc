from django.contrib import admin

from patients.models import Patient


@admin.register(Patient)
class PatientAdmin(admin.ModelAdmin):
    list_display = ["name", "age", "hospital", "added_at"]
    list_filter = ["hospital"]
    search_fields = ["name"]
