"""Tests of dataplane/routing."""
