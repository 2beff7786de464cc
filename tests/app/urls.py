from django.contrib import admin
from django.urls import include, path

from tests.app import views

namespaced = ([path("named/", views.unbound, name="named")], "plain")

urlpatterns = [
    path("admin/", admin.site.urls),
    path("whoami/", views.whoami, name="whoami"),
    path("notes/", views.notes, name="notes"),
    path("notes/raw/", views.notes_raw),
    path("notes/async/", views.notes_async),
    path("notes/stream/", views.notes_stream),
    path("notes/stream/async/", views.notes_stream_async),
    path("notes/cached/", views.notes_cached),
    path("notes/rollback/", views.notes_rollback),
    path("notes/later/", views.notes_later),
    path("counter/", views.counter),
    path("cache/", views.cached_value),
    path("session/", views.session_value),
    path("boom/", views.boom),
    path("slow/", views.slow),
    path("file/", views.own_file),
    path("health/", views.unbound, name="health"),
    path("health/<int:number>/", views.Unbound.as_view()),
    path("ns/", include(namespaced, namespace="space")),
]
