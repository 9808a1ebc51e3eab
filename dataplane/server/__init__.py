"""The way of a connection, and everything else that listens.

tls          certificates and what a handshake said
listener     accepts, looks at the first bytes, starts TLS, has the engine sign the client in
channel      a byte stream with await, for the time of signing in
ports        what an engine may call meanwhile (`ports.SessionPorts`)
splice       afterwards: bytes through a relay, by callbacks, without a task
pooled       the same for clients that share the server's sessions, a transaction each
sessions     who is signed in; ends sessions whose right to be here has gone
forward      workers asking each other who owns a token
http, admin  ASGI on a shared port; metrics, health, readiness
drain        SIGTERM: not ready, no new connections, let requests finish, close
"""
