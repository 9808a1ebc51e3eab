"""Tests of dataplane/server."""
