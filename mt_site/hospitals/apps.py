from django.apps import AppConfig


class HospitalsConfig(AppConfig):
    name = "hospitals"

    def ready(self) -> None:
        from hospitals import signals  # noqa: F401
