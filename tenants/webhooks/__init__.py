"""Webhooks: a tenant's endpoints, the outbox of its events, and their signed deliveries."""
