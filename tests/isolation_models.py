"""Models whose relations reach further than the application's: generic, many to many, inherited, with permissions."""

from django.contrib.contenttypes.fields import GenericForeignKey, GenericRelation
from django.contrib.contenttypes.models import ContentType
from django.db import models


class Tag(models.Model):
    name = models.CharField(max_length=50)
    content_type = models.ForeignKey(ContentType, models.CASCADE)
    object_id = models.PositiveIntegerField()
    content_object = GenericForeignKey()

    class Meta:
        app_label = "isolation"


class Place(models.Model):
    name = models.CharField(max_length=50, unique=True)
    tags = GenericRelation(Tag)
    neighbours = models.ManyToManyField("self")
    visitors = models.ManyToManyField(Tag, through="Visit", related_name="visited")

    class Meta:
        app_label = "isolation"


class Restaurant(Place):
    stars = models.IntegerField(default=0)

    class Meta:
        app_label = "isolation"


class Visit(models.Model):
    place = models.ForeignKey(Place, models.CASCADE, null=True)
    tag = models.ForeignKey(Tag, models.CASCADE, null=True)
    book = models.ForeignKey("app.Book", models.CASCADE, null=True)

    class Meta:
        app_label = "isolation"
        order_with_respect_to = "place"


MODELS = (Tag, Place, Restaurant, Visit)
