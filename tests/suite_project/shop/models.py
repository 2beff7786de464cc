from django.contrib.contenttypes.fields import GenericForeignKey, GenericRelation
from django.contrib.contenttypes.models import ContentType
from django.db import models


class Category(models.Model):
    name = models.CharField(max_length=100, unique=True)

    def __str__(self):
        return self.name


class Tag(models.Model):
    word = models.SlugField()
    content_type = models.ForeignKey(ContentType, on_delete=models.CASCADE)
    object_id = models.PositiveBigIntegerField()
    content = GenericForeignKey()


class Product(models.Model):
    name = models.CharField(max_length=100)
    category = models.ForeignKey(Category, on_delete=models.CASCADE, null=True)
    details = models.JSONField(default=dict)
    photo = models.FileField(blank=True)
    tags = GenericRelation(Tag)

    def __str__(self):
        return self.name


class Note(models.Model):
    text = models.CharField(max_length=100)


class Document(models.Model):
    """Lives in the database "documents"."""

    title = models.CharField(max_length=100)
