from django.db import models


class Entry(models.Model):
    what = models.CharField(max_length=100)
