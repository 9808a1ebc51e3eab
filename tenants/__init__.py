"""The control plane: who may have what. The only place with Django models.

Read in this order: `core` (what all share), `accounts` and `iam` (who), `usage` (plans),
`instances` (what), `operations` (how it changes), `publish` (what the data plane gets to know),
`api` and `console` (the doors).

Every app has files of the same names: `models` (data only), `services` (writes,
`<entity>_<action>`, keyword-only), `selectors` (reads, always scoped by tenant), `tasks` (thin, for
Celery), `apis` (thin, REST).
"""
