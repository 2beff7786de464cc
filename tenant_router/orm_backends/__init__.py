"""One manager per ORM."""
