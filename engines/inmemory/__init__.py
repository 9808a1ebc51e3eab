"""Redis: RESP2 and RESP3, signed in here, then relayed to the instance's own server.

In order of control flow: `engine` (the declaration), `session` (AUTH, HELLO, client certificates),
`relay` (the signed-in session: framing, admission, metering), `errors` (reason -> error line),
`reply` (what we say ourselves), `plan` (what a role may do), `parse` (what a command costs), `wire`
(commands).
"""
