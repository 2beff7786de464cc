from django.contrib import admin
from django.urls import path
from shop import views

urlpatterns = [
    path("admin/", admin.site.urls),
    path("products/", views.products),
    path("products/async/", views.products_async),
    path("count/", views.count),
    path("notes/", views.notes),
    path("host/", views.host),
    path("stream/", views.stream),
    path("cached/", views.cached),
    path("alias/", views.alias),
]
