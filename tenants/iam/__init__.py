"""Who may do what: service ids, API keys, policies, tokens, and how a request proves who it is.

Read in this order: `models`, `selectors` (rows as the decision of `engines/kit/iam` takes them),
`actors` (who a request acts as), `services` (keys), `service_ids`, `policies`, then `signing`,
`tokens` and `views` (`/identity/token` in IBM's shapes).
"""
