"""Which instance and which credential a client means, from the published records.

    table        the records in memory, indexed; tells its subscribers of every change
    snapshot     the same on disk: the last known good, for a start without control database
    follower     keeps the table equal to `publish.record`, by NOTIFY, and by comparing versions
    directory    hints of a client -> candidate; passwords and tokens against digests

Nothing here writes to a control-plane table.
"""
