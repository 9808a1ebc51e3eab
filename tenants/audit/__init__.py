"""The append-only record of who did what; so far the events that data planes hand in.

The registry of actions, the hash chain of a tenant, export and drains will live here.
"""
