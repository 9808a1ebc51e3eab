"""Benchmarks: programs that print ratios. `python -m tests.benchmarks` runs them all."""
