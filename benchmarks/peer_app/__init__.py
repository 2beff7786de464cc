"""The application of ``peer_site.py``: packages that use schemas look models up by their app."""
