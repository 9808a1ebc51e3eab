"""PostgreSQL: protocol v3, signed in here, then relayed to the instance's own server.

In order of control flow: `engine` (the declaration), `session` (startup and sign-in), `relay` (the
signed-in session: framing, admission, metering), `parse` (what a statement is), `wire` (messages),
`reply` (what we say ourselves), `errors` (reason -> SQLSTATE).
"""
