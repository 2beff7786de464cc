"""The Django ORM."""
