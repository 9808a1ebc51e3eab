"""Connections to where data is.

instance_server   the unix socket of an instance's own server (relayed engines)
warm_sessions     sessions there that outlive their clients
pooled_sessions   sessions there that clients share, a transaction each
fair_share        which of many pools gets the next session
pool              warm PostgreSQL sessions of a cell, and `ports.Store` over them
sqlstate          what PostgreSQL says -> why a request is refused
"""
