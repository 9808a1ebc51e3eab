"""Backups of instances: encrypted copies in object storage, their schedule and retention, restores.

Read in this order: `models`, `keys` (what wraps what), `vault` (encrypted pieces in a storage),
`shipping` (between the hosts' depot and the vault), `steps` (what operations do), `services`
(start, change, delete), `schedules`, `retention`.
"""
