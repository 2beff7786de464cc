"""What the middleware is made of: answers, streaming, signatures, health and metrics.

Other rooms import these modules; nothing here knows of management commands or tasks.
"""
