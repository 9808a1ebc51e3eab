"""Instances that sleep: a real host, a real data plane and real drivers; no control plane."""
