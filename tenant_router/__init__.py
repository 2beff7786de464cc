"""Multi-tenancy for Django by settings alone: one database and cache set per tenant."""

__version__ = "0.1.0"
