"""Django's caches, per tenant."""
