"""Tests of dataplane/observe."""
