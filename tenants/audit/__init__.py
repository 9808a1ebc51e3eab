"""The append-only record of who did what: control-plane actions, and what data planes hand in.

The hash chain of a tenant, export and drains will live here.
"""
