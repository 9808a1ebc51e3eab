"""The embedded default: everything of WeftKit on one machine, from wheels, behind `make up`.

    python -m deploy.local up|down|status|run

`up` prepares (account, directories, secrets, certificates, ports), starts a guard in the
background and waits until all is ready; the guard keeps the supervisor; the supervisor keeps every
other process. `run` is the supervisor in the foreground. Read in this order:

    home             the environment, weftkit.toml, directories, secrets
    privilege        what root hands over to the user `weftkit`
    certificates     our own certificate authority
    ports            which ports are taken, and by whom
    system_postgres, system_redis   the control plane's own two servers
    programs         the table of all processes: command, order, readiness
    running          finding the processes of this home, also those of an earlier supervisor
    supervisor       starts, watches, restarts, stops
    guard            starts the supervisor again if it is killed
    status           the file through which the supervisor tells of itself
    connections      the printed table
    commands         up, down, status, run
"""
