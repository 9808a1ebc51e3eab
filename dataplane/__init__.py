"""The data plane: the process that clients connect to, and the only place with sockets.

`python -m dataplane` starts a master, which keeps N workers alive; every worker listens on every
port (SO_REUSEPORT) and serves its connections alone on one uvloop. It knows instances only by the
published records and keeps serving from the last known good ones while the control plane is away.

Read in this order:

    config           the environment and weftkit.toml, read once
    master, worker   the processes: who starts what, and how one worker is put together
    server/          listener -> sign-in -> splice: the way of a connection; admin port; drain
    routing/         which instance and which credential a client means
    limits/          admission per request class, connection caps, storage quota
    backend/         connections to the instances' own servers and to cells
    observe/         logs, metrics, the meter and its spool, audit events
    host/            another process: the supervisor of the instances' own servers

No Django here, no protocol of any engine either: what a byte means is said by `engines`.
"""
