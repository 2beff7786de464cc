from django.apps import apps
from django.contrib import admin
from django.templatetags.static import static
from django.urls import include, path
from django.views.generic import RedirectView

from mt_site import views

urlpatterns = [
    path("", views.home, name="home"),
    path("healthz", views.healthz, name="healthz"),
    path("favicon.ico", RedirectView.as_view(url=static("site/favicon.svg")), name="favicon"),
    path("api/hospitals/", include("hospitals.urls")),
    path("api/patients/", include("patients.urls")),
    path("admin/", admin.site.urls),
]
if apps.is_installed("reports"):
    urlpatterns.append(path("api/reports/", include("reports.urls")))
