"""The REST admin API v1, assembled from the apps' `apis.py`; OpenAPI; idempotency keys."""
