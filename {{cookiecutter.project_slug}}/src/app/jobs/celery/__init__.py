"""Celery, which distributes jobs through Redis."""
