"""HTTP/1.1 for engines whose requests are read whole (`EngineSpec.serve`).

Read in this order: `framing` (bytes to requests, pure), `answers` (answers to bytes, pure),
`connection` (a client's turns, its deadlines), `front` (all connections of an engine in a worker,
drain) and `http_ports` (what an engine's handler may call).
"""
