"""Tests of dataplane/backend."""
