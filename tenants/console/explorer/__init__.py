"""The data explorer: an instance's data in the browser, one explorer for each engine.

Whatever it does goes through the data plane, over the engine's own protocol, as a short-lived
credential with the person's own role: the instance's limits hold, requests are metered and, where
that is switched on, audited like any other client's. There is no superuser path.

    page       the hook: engine -> its Explorer; the page `instances/<handle>/data`
    access     short-lived credentials, kept in this process's memory only
    sql        runs statements at a relational instance, within limits of time, rows and bytes
    relational the SQL console
    keys       reads and writes keys of an inmemory instance, within limits
    inmemory   the key browser
    items      reads and writes items of a keyvalue instance, within limits
    keyvalue   the item explorer
"""
