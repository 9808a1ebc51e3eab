"""Tests of dataplane/limits."""
