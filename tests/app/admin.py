from django.contrib import admin

from tests.app.models import Note

admin.site.register(Note)
