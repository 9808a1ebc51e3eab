"""Connections to where data is.

instance_server   the unix socket of an instance's own server (relayed engines)
warm_sessions     sessions there that outlive their clients
pool              warm PostgreSQL sessions of a cell, and `ports.Store` over them
sqlstate          what PostgreSQL says -> why a request is refused
"""
