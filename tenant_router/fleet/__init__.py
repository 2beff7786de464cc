"""Work for many tenants, and what their databases are like."""
