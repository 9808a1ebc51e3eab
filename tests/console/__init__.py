"""The dashboard in Debian's Chromium, against a live daphne with a real PostgreSQL and Redis."""
