"""The instance host: keeps every relayed instance's own server process as its record wants it.

`python -m dataplane.host` runs once on each machine that holds instances. It reads the published
records of its host name, starts, stops, adopts and removes PostgreSQL and Redis servers, and writes
what it made true into `publish.observed`. It serves no client: the data plane connects to the
servers' unix sockets by itself. Clients wait for this process only while it wakes an instance that
slept, or starts a server again.

Read in this order:

    paths            where an instance's data, sockets and logs are
    settings         the environment
    binaries         which postgres and redis-server are used
    process          one server process: spawn, adopt, signal, wait for its end
    bounds           what a server process may take (rlimits, OOM score, cgroup)
    template, clone  the ready-made data directory, and copying it
    postgres, redis  the two kinds of server, behind the protocol of `server`
    door             the socket's name, by which clients are let in and kept out
    hibernation      when an instance may sleep, and the mark on disk that says that it does
    feed, snapshot   records in, observations out, and the last known good file
    keeper           one task an instance: compares, acts, reports
    wake_socket      where the data plane asks for an instance to be woken
    metrics          what is counted, as a file

    keeper           one asyncio task an instance: compares, acts, reports
    work             what a task of `publish.task` is: stages that can be begun again
    task_rows, tasks the rows of this host, and who carries them out
    depot            the files that the planes hand to each other
    rdb              what is known of RDB files
    redis_export     a running server saves
    redis_import     a file is proven in a `redis_scratch`, then takes the data's place
    host             all keepers together, start and stop of the whole
"""
