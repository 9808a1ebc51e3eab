"""Management commands of the instances."""
