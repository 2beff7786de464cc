"""A URLconf whose routes begin with the language."""

from django.conf.urls.i18n import i18n_patterns
from django.urls import path

from tests.app import views

urlpatterns = i18n_patterns(path("about/", views.whoami, name="about"))
