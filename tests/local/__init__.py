"""Tests of the embedded default: its parts alone, and once the whole stack."""
