"""The exact semantics of conditions, updates and projections over decoded items."""
