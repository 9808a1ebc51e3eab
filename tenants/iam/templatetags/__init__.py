"""Filters of pages that show what somebody may do."""
