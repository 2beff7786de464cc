from django.db import models


class Note(models.Model):
    text = models.CharField(max_length=200, unique=True)

    def __str__(self) -> str:
        return self.text


class Counter(models.Model):
    value = models.IntegerField(default=0)


class Shelf(models.Model):
    name = models.CharField(max_length=100)


class Book(models.Model):
    shelf = models.ForeignKey(Shelf, models.CASCADE)
    title = models.CharField(max_length=100)


class Plan(models.Model):
    """Lives in the central database."""

    name = models.CharField(max_length=100)
