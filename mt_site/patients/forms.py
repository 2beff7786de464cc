import json
from typing import Any

from django import forms

from patients.models import Patient


class PatientForm(forms.ModelForm):
    class Meta:
        model = Patient
        fields = ["name", "age", "hospital"]

    @classmethod
    def from_json(cls, body: bytes) -> "PatientForm":
        """Raise ValueError for a body that is no flat JSON object of texts and numbers."""
        return cls(_flat_object(body))

    def clean_name(self) -> str:
        name: str = self.cleaned_data["name"]
        try:
            name.encode()
        except UnicodeEncodeError:  # JSON can spell half a surrogate pair; no database can store it
            raise forms.ValidationError("Enter a name of valid characters.") from None
        return name

    def task_arguments(self) -> dict[str, Any]:
        hospital = self.cleaned_data["hospital"]
        return {
            "name": self.cleaned_data["name"],
            "age": self.cleaned_data["age"],
            "hospital_id": hospital and hospital.pk,
        }


def _flat_object(body: bytes) -> dict[str, str | int | None]:
    try:
        data = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ValueError("The body is not JSON.") from error
    if not isinstance(data, dict):
        raise ValueError('Send a JSON object such as {"name": "Ada"}.')
    for key, value in data.items():
        if isinstance(value, bool) or not isinstance(value, str | int | None):
            raise ValueError(f"{key}: send a text, a whole number or null.")
    if not isinstance(data.get("name", ""), str):
        raise ValueError("name: send a text.")
    return data
