"""One manager per ORM: it gives each tenant its own connections."""
